"""Sandboxes as containers of a Docker engine."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from dataclasses import replace
from http import HTTPStatus
from pathlib import Path
from types import MappingProxyType
from typing import Any

from orchestrator.aio import PrioritySemaphore, cleanup_after, shielded
from orchestrator.backends.cluster_settings import ClusterSetting
from orchestrator.backends.docker.attached_sandbox import AttachedSandbox
from orchestrator.backends.docker.client import ANSWER_SECONDS, OLDEST_API, DockerClient, api_version, is_status
from orchestrator.backends.docker.container_spec import create_body, mounted
from orchestrator.backends.docker.endpoint import find_endpoint
from orchestrator.backends.docker.engine_link import HostKernel, engine_link
from orchestrator.backends.docker.engine_memory import has_refused_sockets, remember_refusal
from orchestrator.backends.docker.podman import closed, missing_source
from orchestrator.backends.docker.sandbox import DockerSandbox, removed
from orchestrator.backends.docker.share_probe import forget_share, probe_share
from orchestrator.backends.docker.volumes import find_volumes, open_volume, remove_volume, take_lease
from orchestrator.backends.engine_info import EngineInfo, choose_link, require_runtime, user_inside
from orchestrator.backends.spec import BackendConnection, BackendSpec, MountRow
from orchestrator.errors import BackendError, BackendUnavailableError, ImageNotFoundError, SandboxLostError
from orchestrator.http.errors import StatusError
from orchestrator.images.context import runtime_image, runtime_source
from orchestrator.sandbox import naming
from orchestrator.sandbox.api import (
    Backend,
    Capacity,
    FoundVolume,
    LinkKind,
    Sandbox,
    SandboxSpec,
    Share,
    Sharing,
    Volume,
    VolumeFiles,
)
from orchestrator.wire.line import LINE_BYTES
from orchestrator.wire.run import EventDetail

_STARTS_PER_CORE = 2
_NO_ENVIRONMENT: Mapping[str, str] = MappingProxyType({})


class DockerBackend:
    """Runs each Sandbox in its own container.

    `check` looks for `image`, and pulls or builds it if it is this version's own; `environ` is what that needs of the
    environment. `line_bytes` bounds a line of stdout, newline included. `command` replaces the image's entrypoint.
    """

    def __init__(
        self,
        engine: DockerClient,
        image: str,
        *,
        environ: Mapping[str, str] = _NO_ENVIRONMENT,
        line_bytes: int = LINE_BYTES[EventDetail.DEFAULT],
        command: Sequence[str] | None = None,
    ) -> None:
        self._engine = engine
        self._image = image
        self._environ = environ
        self._line_bytes = line_bytes
        self._command = command
        self._sockets_fail: bool | None = None
        """None until it was looked up what earlier orchestrators found out."""
        self._sees_files = True
        # A hundred starts at once would each take a hundred times as long, and reach their brokers too late.
        self._starting = PrioritySemaphore(_STARTS_PER_CORE * (os.cpu_count() or 1))

    async def check(self) -> None:
        """Check that the engine answers and has the image. Only a Sandbox's connection proves that sockets work.

        If the engine does not have this version's own image, pull or build it, which may take minutes.

        Raises:
            BackendUnavailableError: no engine answers, or it is too old.
            ImageNotFoundError: the engine does not have the runtime image, which is another one.
            BackendError: this version's image can be neither pulled nor built.
        """
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._check_version())
                tasks.create_task(self._check_image())
                tasks.create_task(self._fit_to_engine())
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None

    async def engine_info(self) -> EngineInfo:
        """Return the engine's capabilities and its owner.

        Raises:
            BackendUnavailableError: the engine cannot be reached.
        """
        async with self._engine.translating_errors("report its capabilities"):
            found = await self._engine.engine_info()
        if self._sockets_fail is None:
            self._sockets_fail = has_refused_sockets(found.id, self._engine.address)
        link = engine_link(
            found,
            _host_kernel(),
            is_local=not self._engine.endpoint.remote,
            has_refused=self._sockets_fail,
            sees_files=self._sees_files,
        )
        return replace(found, link=link)

    async def capacity(self) -> Capacity | None:
        """Return what the engine's machine has; None if it is this machine."""
        found = await self.engine_info()
        return None if self._is_here(found) else Capacity(found.cores, found.memory)

    async def choose_link(self, spec: SandboxSpec) -> LinkKind:
        """Return the link that the job demands, else the one that suits the Sandbox's runtime and the engine."""
        choice = choose_link(spec.link, spec.runtime_class, await self.engine_info())
        return LinkKind.SOCKET if choice is None else choice.link

    async def avoid_sockets(self) -> None:
        """Link new Sandboxes by streams, those of later orchestrators too."""
        self._sockets_fail = True
        remember_refusal((await self.engine_info()).id, self._engine.address)

    def _is_here(self, engine_info: EngineInfo) -> bool:
        return self._sees_files and not self._engine.endpoint.remote and _host_kernel().is_shared(engine_info)

    async def _fit_to_engine(self) -> None:
        """Request what the first Sandbox needs to know, and start as many at once as the engine's machine can."""
        if (other := await self.capacity()) is not None:
            self._starting = PrioritySemaphore(_STARTS_PER_CORE * (other.cores or 1))

    async def _check_version(self) -> None:
        async with self._engine.translating_errors("report its version"):
            version = await self._engine.version()
        if api_version(version) < OLDEST_API:
            message = f"the Docker engine at {self._engine.address} is {version['Version']}: 19.03 or newer is needed"
            raise BackendUnavailableError(message)

    async def _check_image(self) -> None:
        if await self.has_image():
            return
        if self._image != runtime_image():
            raise _image_not_found(self._image)
        # Imported here: it happens once for each version.
        from orchestrator.backends.docker.image_provision import provide  # noqa: PLC0415

        await provide(self._engine, runtime_source(), self._environ)

    async def has_image(self) -> bool:
        """Ask the engine whether it has the image.

        Raises:
            BackendError: the engine cannot be asked.
        """
        async with self._engine.translating_errors(f"look for the image {self._image}"):
            try:
                await self._engine.image(self._image)
            except StatusError as error:
                if is_status(error, HTTPStatus.NOT_FOUND):
                    return False
                raise
        return True

    @asynccontextmanager
    async def launch(self, spec: SandboxSpec) -> AsyncIterator[Sandbox]:
        """Create and start a container; if the engine is restarting, wait for it.

        Raises:
            ImageNotFoundError: the engine does not have its image.
            BackendError: the container could not be started.
        """
        kind = AttachedSandbox if spec.link is LinkKind.STREAM else DockerSandbox
        sandbox = kind(self._engine, spec.name, self._line_bytes)
        async with cleanup_after(sandbox):
            async with self._starting.slot(urgent=spec.urgent):
                # A create that is cancelled halfway would leave a container with an unknown id.
                await shielded(self._create(sandbox, spec))
                async with self._engine.translating_errors(f"start the Sandbox {spec.name}", ANSWER_SECONDS):
                    await sandbox.start()
            yield sandbox

    @asynccontextmanager
    async def adopt(self, name: str) -> AsyncIterator[Sandbox]:
        """Take over a container that was launched before.

        Raises:
            SandboxLostError: no container has that name.
        """
        found = await self._find(name)
        # Only those that are linked by a stream have an open stdin.
        kind = AttachedSandbox if found["Config"]["OpenStdin"] else DockerSandbox
        sandbox = kind(self._engine, name, self._line_bytes, str(found["Id"]))
        async with cleanup_after(sandbox):
            yield sandbox

    async def prune(
        self, labels: Mapping[str, str], keep: Callable[[Mapping[str, str]], bool] = lambda _: False
    ) -> tuple[str, ...]:
        """Remove every container of ours that carries all `labels`, except those for which `keep` returns True.

        Raises:
            BackendError: some could not be removed; the others were.
        """
        wanted = {naming.MANAGED_BY: naming.MANAGER, **labels}
        async with self._engine.translating_errors("list the Sandboxes"):
            found = await self._engine.labelled(wanted)
        names = {
            str(container["Id"]): str(container["Names"][0]).lstrip("/")
            for container in found
            if not keep(container["Labels"])
        }
        failures: list[BackendError] = []
        async with asyncio.TaskGroup() as tasks:
            for container, name in names.items():
                tasks.create_task(self._prune_one(container, name, failures))
        if failures:
            raise failures[0]
        return tuple(sorted(names.values()))

    async def share(self, directory: Path | None) -> Share:
        """Find out how Sandboxes would see a directory of this machine; None is not seen.

        If they do not see a directory at all, later ones get streams.

        Raises:
            BackendError: the engine does not answer.
        """
        found = await probe_share(self._engine, self._image, directory)
        # An orchestrator in a container shares the engine's kernel, and not its files.
        if directory is not None:
            self._sees_files = self._sees_files and found.sharing is not Sharing.NONE
        return found

    def open_volume(self, volume: Volume) -> AbstractAsyncContextManager[VolumeFiles]:
        """Make a volume, unless it exists, and open its files for the block.

        Raises:
            BackendError: it cannot be made or opened.
        """
        return open_volume(self._engine, volume)

    async def volumes(self, labels: Mapping[str, str], name: str | None = None) -> tuple[FoundVolume, ...]:
        """List the volumes that carry all `labels`, or only the one of that name.

        Raises:
            BackendError: the engine does not list them.
        """
        return await find_volumes(self._engine, labels, name)

    async def remove_volume(self, name: str) -> None:
        """Remove a volume; one that is gone is no error.

        Raises:
            BackendError: it still exists.
        """
        await remove_volume(self._engine, name)

    async def take_lease(self, name: str, image: str, labels: Mapping[str, str]) -> Mapping[str, str] | None:
        """Make a container of that name that never starts; return the labels of the one that exists, None if made.

        Raises:
            BackendError: the engine refuses for another reason.
        """
        return await take_lease(self._engine, name, image, labels)

    async def _prune_one(self, container: str, name: str, failures: list[BackendError]) -> None:
        try:
            async with self._engine.translating_errors(f"remove the Sandbox {name}"):
                await removed(self._engine, container)
        except BackendError as error:
            failures.append(error)

    async def _create(self, sandbox: DockerSandbox, spec: SandboxSpec) -> None:
        engine_info = await self.engine_info()
        require_runtime(spec.runtime_class, engine_info)
        inside = replace(spec, user=user_inside(spec.user, engine_info))
        body = create_body(inside, self._command, shares_files=self._is_here(engine_info))
        if engine_info.is_podman:
            body = _for_podman(spec, body)
        async with self._engine.translating_errors(f"create the Sandbox {spec.name}", ANSWER_SECONDS):
            try:
                await sandbox.create(body)
            except StatusError as error:
                refusal = _refusal(error, spec, self._engine.address)
                if refusal is None:
                    raise
                if isinstance(refusal, BackendUnavailableError):
                    await forget_share(self._engine, spec.workspace)
                raise refusal from error

    async def _find(self, name: str) -> Mapping[str, Any]:
        async with self._engine.translating_errors(f"look for the Sandbox {name}"):
            try:
                found = await self._engine.inspect(name)
            except StatusError as error:
                if not is_status(error, HTTPStatus.NOT_FOUND):
                    raise
                found = {}
        if not found or found["Config"]["Labels"].get(naming.MANAGED_BY) != naming.MANAGER:
            message = f"no Sandbox {name} exists at the Docker engine {self._engine.address}"
            raise SandboxLostError(message)
        return found


@asynccontextmanager
async def connect(
    environ: Mapping[str, str],
    image: str,
    *,
    line_bytes: int = LINE_BYTES[EventDetail.DEFAULT],
    command: Sequence[str] | None = None,
) -> AsyncIterator[DockerBackend]:
    """Give the backend for the engine at DOCKER_HOST, in the active context, or at a usual socket.

    Sends nothing before the first call; `check` finds out whether an engine answers.

    Raises:
        BackendUnavailableError: the engine's address, context or certificates cannot be used.
    """
    async with aclosing(DockerClient(find_endpoint(environ), environ)) as engine:
        yield DockerBackend(engine, image, environ=environ, line_bytes=line_bytes, command=command)


def _connect(connection: BackendConnection) -> AbstractAsyncContextManager[Backend]:
    return connect(connection.environ, connection.image, line_bytes=connection.line_bytes)


async def _has_image(connection: BackendConnection) -> bool:
    async with connect(connection.environ, connection.image) as backend:
        return await backend.has_image()


async def _engine_info(connection: BackendConnection) -> EngineInfo:
    async with connect(connection.environ, connection.image) as backend:
        return await backend.engine_info()


def _describe_mounts(spec: SandboxSpec, _cluster: ClusterSetting | None) -> Iterator[MountRow]:
    for path, source, mode in mounted(spec):
        yield MountRow(path, source, mode)


def _host_kernel() -> HostKernel:
    return HostKernel(sys.platform, os.uname().release)


SPEC = BackendSpec(
    name="docker",
    connect=_connect,
    engine_info=_engine_info,
    describe_mounts=_describe_mounts,
    default_image=runtime_image,
    has_image=_has_image,
)


def _image_not_found(image: str) -> ImageNotFoundError:
    return ImageNotFoundError(
        f"no image {image} exists at the engine: pull or build it, or choose another with --image"
    )


def _for_podman(spec: SandboxSpec, body: Mapping[str, Any]) -> dict[str, Any]:
    if (missing := missing_source(body)) is not None:
        message = f"the Sandbox {spec.name} mounts {missing}, which does not exist: create it, and try again"
        raise BackendUnavailableError(message)
    return closed(body)


def _refusal(error: StatusError, spec: SandboxSpec, address: str) -> BackendError | None:
    text = str(error)
    if is_status(error, HTTPStatus.NOT_FOUND) and "image" in text:
        return _image_not_found(spec.image)
    if is_status(error, HTTPStatus.CONFLICT):
        return BackendError(
            f"a container named {spec.name} exists already: another orchestrator runs this job, or one left it behind"
            f" and `docker rm -f {spec.name}` removes it"
        )
    if is_status(error, HTTPStatus.BAD_REQUEST) and "bind source path" in text:
        return BackendUnavailableError(
            f"the Docker engine at {address} does not see this machine's files ({text}): try again, so that the job"
            " works on a copy, or set DOCKER_HOST to an engine that runs here"
        )
    return None
