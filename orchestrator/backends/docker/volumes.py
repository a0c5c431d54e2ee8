"""Volumes of a Docker engine, filled and read through a container that is created and never started.

The engine's archive API reads and writes the volumes of such a container, on an engine that shares no files too.
"""

import asyncio
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from http import HTTPStatus
from typing import Any

from orchestrator.aio import cleanup_after, shielded
from orchestrator.backends.docker.client import ANSWER_SECONDS, DockerClient, is_status, until_answered
from orchestrator.backends.docker.container_spec import named_volume
from orchestrator.backends.docker.sandbox import removed
from orchestrator.backends.engine_info import user_inside
from orchestrator.errors import BackendUnavailableError
from orchestrator.http.errors import StatusError
from orchestrator.sandbox import naming
from orchestrator.sandbox.api import FoundVolume, User, Volume
from orchestrator.wire.layout import WORKSPACE

_PAUSE_SECONDS = 0.1
_SILENT_SECONDS = 120.0
"""How long an engine may take for the next piece of an archive: it reads the file before it sends it."""


class HelperContainer:
    """A container that only holds mounts. It never starts, so nothing in it runs."""

    def __init__(self, engine: DockerClient, name: str) -> None:
        self.name = name
        self._engine = engine
        self._asked_for = False

    async def create(self, body: Mapping[str, Any]) -> None:
        """Create it.

        Raises:
            StatusError: the engine refuses.
        """
        self._asked_for = True
        await self._engine.create(self.name, body)

    async def remove(self) -> None:
        """Remove it.

        Raises:
            BackendError: it may still exist.
        """
        if self._asked_for:
            async with self._engine.translating_errors(f"remove the container {self.name}"):
                await until_answered(lambda: removed(self._engine, self.name), idempotent=True)


class DockerVolumeFiles:
    """The files of a volume that a container has at /workspace."""

    def __init__(self, engine: DockerClient, container: str, volume: str, owner: User) -> None:
        self.owner = owner
        self._engine = engine
        self._container = container
        self._volume = volume

    async def write(self, archive: AsyncIterator[bytes]) -> None:
        """Unpack an archive into it.

        Raises:
            BackendError: the engine refuses, or is gone.
        """
        with self._engine.translate_errors(f"write to the volume {self._volume}"):
            await self._engine.unpack(self._container, str(WORKSPACE), archive)

    async def read(self, path: str = "") -> AsyncGenerator[bytes, None]:
        """Yield an archive of it, or of a file at `path`.

        Raises:
            BackendError: the engine refuses, or is gone.
        """
        with self._engine.translate_errors(f"read the volume {self._volume}"):
            archive = self._engine.archive(self._container, str(WORKSPACE / path), _SILENT_SECONDS)
            try:
                async with aclosing(archive) as pieces:
                    async for piece in pieces:
                        yield piece
            except TimeoutError as error:
                message = f"the Docker engine at {self._engine.address} stopped sending {self._volume}: try again"
                raise BackendUnavailableError(message) from error


@asynccontextmanager
async def open_volume(engine: DockerClient, volume: Volume) -> AsyncIterator[DockerVolumeFiles]:
    """Make a volume, unless it exists, and open its files for the block.

    Raises:
        BackendError: it cannot be made or opened, or the image lacks the workspace's directory.
    """
    helper = HelperContainer(engine, f"{volume.name}-{secrets.token_hex(4)}")
    body = _idle(volume.image, {**volume.labels, naming.SANDBOX: helper.name})
    body["HostConfig"]["Mounts"] = [named_volume(volume.name)]
    async with cleanup_after(helper):
        async with engine.translating_errors(f"open the volume {volume.name}", ANSWER_SECONDS):
            info = await engine.engine_info()
            await engine.create_volume(volume.name, volume.labels)
            await shielded(helper.create(body))
        yield DockerVolumeFiles(engine, helper.name, volume.name, user_inside(volume.user, info))


async def take_lease(
    engine: DockerClient, name: str, image: str, labels: Mapping[str, str]
) -> Mapping[str, str] | None:
    """Make a container of that name that never starts; return the labels of the one that exists, None if made.

    Raises:
        BackendError: the engine refuses for another reason.
    """
    async with engine.translating_errors(f"create the container {name}"):
        while True:
            try:
                await until_answered(lambda: engine.create(name, _idle(image, labels)))
            except StatusError as error:
                holder = await _labels_of(engine, name)
                if holder is not None:
                    return holder
                # Its holder removes it just now.
                if not is_status(error, HTTPStatus.CONFLICT):
                    raise
                await asyncio.sleep(_PAUSE_SECONDS)
            else:
                return None


async def _labels_of(engine: DockerClient, container: str) -> Mapping[str, str] | None:
    try:
        return dict((await engine.inspect(container))["Config"]["Labels"] or {})
    except StatusError as error:
        if is_status(error, HTTPStatus.NOT_FOUND):
            return None
        raise


def _idle(image: str, labels: Mapping[str, str]) -> dict[str, Any]:
    """The body of a container that never starts."""
    return {
        "Image": image,
        # Some engines want to know what would run.
        "Entrypoint": ["/bin/false"],
        "Cmd": [],
        "NetworkDisabled": True,
        "Labels": dict(labels),
        "HostConfig": {"NetworkMode": "none"},
    }


async def find_volumes(engine: DockerClient, labels: Mapping[str, str], name: str | None) -> tuple[FoundVolume, ...]:
    """List the volumes that carry all `labels`, or only the one of that name, with the containers that have them.

    Raises:
        BackendError: the engine does not list them.
    """
    async with engine.translating_errors("list its volumes"):
        return tuple(
            [
                FoundVolume(
                    name=str(volume["Name"]),
                    labels=volume["Labels"] or {},
                    users={
                        str(container["Names"][0]).lstrip("/"): container["Labels"] or {}
                        for container in await engine.volume_users(str(volume["Name"]))
                    },
                )
                for volume in await engine.volumes(labels, name)
            ]
        )


async def remove_volume(engine: DockerClient, name: str) -> None:
    """Remove a volume; one that is gone is no error.

    Raises:
        BackendError: it still exists.
    """

    async def remove() -> None:
        try:
            await engine.delete_volume(name)
        except StatusError as error:
            if not is_status(error, HTTPStatus.NOT_FOUND):
                raise

    async with engine.translating_errors(f"remove the volume {name}"):
        await until_answered(remove, idempotent=True)
