"""Sandboxes as containers of a Docker engine on this machine."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from http import HTTPStatus

from orchestrator.backends import naming
from orchestrator.backends.docker_address import engine_address
from orchestrator.backends.docker_container import create_body
from orchestrator.backends.docker_engine import ANSWER_SECONDS, OLDEST_API, Engine, api_version, is_status
from orchestrator.backends.docker_sandbox import DockerSandbox, removed
from orchestrator.backends.ground import Ground, require_runtime, user_inside
from orchestrator.backends.http import RefusalError
from orchestrator.backends.removal import removed_after
from orchestrator.backends.shielded import shielded
from orchestrator.backends.turns import Turns
from orchestrator.errors import BackendError, BackendUnavailableError, ImageNotFoundError, SandboxLostError
from orchestrator.sandbox import Sandbox, SandboxSpec
from orchestrator.wire.line import LINE_BYTES
from orchestrator.wire.run import EventDetail

_STARTS_PER_CORE = 2


class DockerBackend:
    """Runs each Sandbox in a container of its own.

    `image` is what `check` looks for. `line_bytes` bounds a line of stdout, newline included. `command` replaces the
    image's entrypoint. `note` takes remarks for a log.
    """

    def __init__(
        self,
        engine: Engine,
        image: str,
        *,
        line_bytes: int = LINE_BYTES[EventDetail.DEFAULT],
        command: Sequence[str] | None = None,
        note: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._note = note
        self._engine = engine
        self._image = image
        self._line_bytes = line_bytes
        self._command = command
        # A hundred at once would each take a hundred times as long, and reach their brokers too late.
        self._starting = Turns(_STARTS_PER_CORE * (os.cpu_count() or 1))

    async def check(self) -> None:
        """Ask whether the engine answers and has the image. That sockets cross, the first Sandbox's connection proves.

        Raises:
            BackendUnavailableError: no engine answers, or it is too old.
            ImageNotFoundError: the runtime image is not there.
        """
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._check_version())
                tasks.create_task(self._check_image())
                # Nothing can be wrong with it; the first Sandbox need not wait for it.
                tasks.create_task(self.ground())
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None

    async def ground(self) -> Ground:
        """Say what the engine can do and whose it is.

        Raises:
            BackendUnavailableError: it cannot be reached.
        """
        async with self._engine.asked("tell what it can do"):
            return await self._engine.ground()

    async def _check_version(self) -> None:
        async with self._engine.asked("tell its version"):
            version = await self._engine.version()
        if api_version(version) < OLDEST_API:
            message = f"the Docker engine at {self._engine.address} is {version['Version']}: 19.03 or newer is needed"
            raise BackendUnavailableError(message)

    async def _check_image(self) -> None:
        async with self._engine.asked(f"look for the image {self._image}"):
            try:
                await self._engine.image(self._image)
            except RefusalError as error:
                if is_status(error, HTTPStatus.NOT_FOUND):
                    raise _image_not_found(self._image) from error
                raise

    @asynccontextmanager
    async def launch(self, spec: SandboxSpec) -> AsyncIterator[Sandbox]:
        """Create and start a container; an engine that is just being restarted is waited for.

        Raises:
            ImageNotFoundError: its image is not there.
            BackendError: it could not be started.
        """
        sandbox = DockerSandbox(self._engine, spec.name, self._line_bytes, self._note)
        async with removed_after(sandbox):
            async with self._starting.turn(urgent=spec.urgent):
                # Cut off in the middle, a create would leave a container whose id nobody knows.
                await shielded(self._create(sandbox, spec))
                async with self._engine.asked(f"start the Sandbox {spec.name}", ANSWER_SECONDS):
                    await sandbox.start()
            yield sandbox

    @asynccontextmanager
    async def adopt(self, name: str) -> AsyncIterator[Sandbox]:
        """Take over a container that was launched before.

        Raises:
            SandboxLostError: there is none of that name.
        """
        sandbox = DockerSandbox(self._engine, name, self._line_bytes, self._note, await self._find(name))
        async with removed_after(sandbox):
            yield sandbox

    async def prune(
        self, labels: Mapping[str, str], spare: Callable[[Mapping[str, str]], bool] = lambda _: False
    ) -> tuple[str, ...]:
        """Remove every container of ours that carries all `labels` and that `spare` does not keep.

        Raises:
            BackendError: some could not be removed; the others are.
        """
        wanted = {naming.MANAGED_BY: naming.MANAGER, **labels}
        async with self._engine.asked("list the Sandboxes"):
            found = await self._engine.labelled(wanted)
        names = {
            str(container["Id"]): str(container["Names"][0]).lstrip("/")
            for container in found
            if not spare(container["Labels"])
        }
        failures: list[BackendError] = []
        async with asyncio.TaskGroup() as tasks:
            for container, name in names.items():
                tasks.create_task(self._prune_one(container, name, failures))
        if failures:
            raise failures[0]
        return tuple(sorted(names.values()))

    async def _prune_one(self, container: str, name: str, failures: list[BackendError]) -> None:
        try:
            async with self._engine.asked(f"remove the Sandbox {name}"):
                await removed(self._engine, container)
        except BackendError as error:
            failures.append(error)

    async def _create(self, sandbox: DockerSandbox, spec: SandboxSpec) -> None:
        ground = await self.ground()
        require_runtime(spec.runtime_class, ground)
        body = create_body(replace(spec, user=user_inside(spec.user, ground)), self._command)
        async with self._engine.asked(f"create the Sandbox {spec.name}", ANSWER_SECONDS):
            try:
                await sandbox.create(body)
            except RefusalError as error:
                refusal = _refusal(error, spec, self._engine.address)
                if refusal is None:
                    raise
                raise refusal from error

    async def _find(self, name: str) -> str:
        async with self._engine.asked(f"look for the Sandbox {name}"):
            try:
                found = await self._engine.inspect(name)
            except RefusalError as error:
                if not is_status(error, HTTPStatus.NOT_FOUND):
                    raise
                found = {}
        if not found or found["Config"]["Labels"].get(naming.MANAGED_BY) != naming.MANAGER:
            message = f"there is no Sandbox {name} at the Docker engine {self._engine.address}"
            raise SandboxLostError(message)
        return str(found["Id"])


@asynccontextmanager
async def connect(
    environ: Mapping[str, str],
    image: str,
    *,
    line_bytes: int = LINE_BYTES[EventDetail.DEFAULT],
    command: Sequence[str] | None = None,
    note: Callable[[str], None] = lambda _: None,
) -> AsyncIterator[DockerBackend]:
    """Give the engine that DOCKER_HOST, the active context or the usual socket names.

    Nothing is sent before the first call; `check` says whether anybody is there.

    Raises:
        BackendUnavailableError: the engine named is not on this machine.
    """
    yield DockerBackend(Engine(engine_address(environ)), image, line_bytes=line_bytes, command=command, note=note)


def _image_not_found(image: str) -> ImageNotFoundError:
    return ImageNotFoundError(f"the image {image} is not there: build it with `make image`, or name another by --image")


def _refusal(error: RefusalError, spec: SandboxSpec, address: str) -> BackendError | None:
    said = str(error)
    if is_status(error, HTTPStatus.NOT_FOUND) and "image" in said:
        return _image_not_found(spec.image)
    if is_status(error, HTTPStatus.CONFLICT):
        return BackendError(
            f"a container named {spec.name} is there already: another orchestrator runs this job, or one left it behind"
            f" and `docker rm -f {spec.name}` removes it"
        )
    if is_status(error, HTTPStatus.BAD_REQUEST) and "bind source path" in said:
        return BackendUnavailableError(
            f"the Docker engine at {address} does not see this machine's files ({said}): set DOCKER_HOST to an engine"
            " that runs here"
        )
    return None
