"""One container: its lines, its end, its removal."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import suppress
from http import HTTPStatus
from typing import Any

from orchestrator.backends.docker.client import ANSWER_SECONDS, DockerClient, is_status, until_answered
from orchestrator.backends.docker.logs import LogLines, LogStream, text_of
from orchestrator.backends.docker.podman import ran_out_of_memory
from orchestrator.errors import BackendError, SandboxLostError
from orchestrator.http.errors import ConnectionBrokenError, StatusError, retrying
from orchestrator.log import get_logger
from orchestrator.sandbox.api import Exit, Reason

_log = get_logger(__name__)
GRACE_SECONDS = 3
"""Between SIGTERM and SIGKILL. The runtime ends at once on SIGTERM: the host already has all that it would save."""

DETAIL_BYTES = 4096
"""How much of the end of stderr is kept as the reason for a Sandbox's end."""

_SIGKILLED = 137
_KILLED = {_SIGKILLED, 255}
"""128 + SIGKILL, which no process inside can send to PID 1 (pid_namespaces(7)); 255 where the engine lost it."""
_POLL_SECONDS = 30.0
"""How long a wait may be silent before the container is inspected: a connection can die unnoticed."""
UNREACHABLE_SECONDS = 600.0
"""How long an engine may be unreachable before its Sandboxes count as lost; they keep working meanwhile."""
_START_PAUSES = (0.5, 1.5)
"""Between tries to start a container: an engine that shuts down ends its shims before it stops answering."""
_PAUSES = (0.1, 0.2, 0.5, 1.0, 2.0)
_REMOVAL_PAUSES = (0.1, 0.3, 1.0, 2.0)


class DockerSandbox:
    """A Sandbox in a container of the Docker engine."""

    def __init__(self, engine: DockerClient, name: str, line_bytes: int, container: str | None = None) -> None:
        self.dropped = 0
        self._name = name
        self._engine = engine
        self._line_bytes = line_bytes
        self._container = container
        self._asked_for = False
        self._leaving = False
        self._cut = False
        self._exit: Exit | None = None
        self._waiting = asyncio.Lock()

    @property
    def name(self) -> str:
        """The container's name."""
        return self._name

    async def create(self, body: Mapping[str, Any]) -> None:
        """Create the container, not started. If the connection broke but the engine made it, use that one."""
        self._asked_for = True
        try:
            self._container = await until_answered(lambda: self._engine.create(self._name, body))
        except ConnectionBrokenError:
            self._container = await self._find_created() or await self._engine.create(self._name, body)
        except StatusError:
            # A container of this name, if one exists, is not ours.
            self._asked_for = False
            raise

    async def start(self) -> None:
        """Start the container, unless it runs already. Retries server errors: the engine may be shutting down.

        Raises:
            SandboxLostError: the connection broke during a start, and the engine cannot complete it.
        """
        for pause in _START_PAUSES:
            try:
                return await until_answered(self._begin, idempotent=True)
            except StatusError as error:
                if error.status < HTTPStatus.INTERNAL_SERVER_ERROR:
                    raise
                await asyncio.sleep(pause)
        try:
            await until_answered(self._begin, idempotent=True)
        except StatusError as error:
            if not self._cut:
                raise
            message = f"the Docker engine went away while it started the Sandbox {self._name}, and cannot now: {error}"
            raise SandboxLostError(message) from error

    async def lines(self) -> AsyncGenerator[bytes, None]:
        """Follow stdout from its beginning. Ends early where the log is cut; the spool has the missing lines."""
        found = LogLines(self._line_bytes)
        try:
            async with self._engine.log(self._id, stdout="1", follow="1") as response:
                async for chunk in response.chunks():
                    for line in found.feed(chunk):
                        yield line
                    if found.fault:
                        _log.debug("the log of the Sandbox %s failed: %s", self._name, found.fault)
                        return
            if (rest := found.rest()) is not None:
                yield rest
        except (ConnectionBrokenError, StatusError) as error:
            _log.debug("the log of the Sandbox %s was cut: %s", self._name, error)
        finally:
            self.dropped += found.dropped

    async def started(self) -> None:
        """Return at once: a launched container runs."""

    async def wait(self) -> Exit:
        """Wait for the container's end.

        Raises:
            SandboxLostError: the container or the engine went away.
        """
        async with self._waiting:
            if self._exit is None:
                self._exit = await self._end()
            return self._exit

    async def remove(self) -> None:
        """Stop the container if it still runs, and remove it.

        Raises:
            BackendError: the container may still exist.
        """
        if self._container is None and not self._asked_for:
            return
        self._leaving = True
        async with self._engine.translating_errors(f"remove the Sandbox {self._name}", GRACE_SECONDS + ANSWER_SECONDS):
            # An engine that took too long to answer may still have created it.
            self._container = self._container or await self._find_created()
            if self._container is None:
                return
            # If the engine is restarting, wait for it: after the restart it would still have the container.
            await until_answered(self._stop_and_remove, idempotent=True)

    async def _begin(self) -> None:
        try:
            await self._engine.start(self._id)
        except ConnectionBrokenError:
            self._cut = True
            raise

    async def _stop_and_remove(self) -> None:
        if self._exit is None:
            await self._stop()
        await removed(self._engine, self._id)

    async def _find_created(self) -> str | None:
        try:
            return str((await until_answered(lambda: self._engine.inspect(self._name), idempotent=True))["Id"])
        except StatusError as error:
            if not is_status(error, HTTPStatus.NOT_FOUND):
                raise
            return None

    @property
    def _id(self) -> str:
        if self._container is None:
            message = f"the Sandbox {self._name} was not created"
            raise BackendError(message)
        return self._container

    async def _stop(self) -> None:
        try:
            await self._engine.stop(self._id, GRACE_SECONDS)
            state = (await self._engine.inspect(self._id))["State"]
        except StatusError:
            return
        self._exit = self._exit or exit_of(state, leaving=True, stderr="")

    async def _end(self) -> Exit:
        clock = asyncio.get_running_loop().time
        answered, pauses = clock(), iter(_PAUSES)
        while clock() - answered < UNREACHABLE_SECONDS:
            try:
                state = await self._state_after_waiting()
                if not state["Running"]:
                    return await self._exit_from(state)
                answered, pauses = clock(), iter(_PAUSES)
            except StatusError as error:
                if is_status(error, HTTPStatus.NOT_FOUND):
                    return self._gone(error)
            except (ConnectionBrokenError, TimeoutError):
                pass  # the engine may be restarting; the state is read again
            await asyncio.sleep(next(pauses, _PAUSES[-1]))
        message = f"the Docker engine at {self._engine.address} no longer reports the state of the Sandbox {self._name}"
        raise SandboxLostError(message)

    async def _exit_from(self, state: Mapping[str, Any]) -> Exit:
        found = exit_of(state, leaving=self._leaving, stderr=await self._stderr(state))
        if found.code == _SIGKILLED and found.reason is Reason.LOST and (await self._engine.engine_info()).is_podman:
            async with asyncio.timeout(ANSWER_SECONDS):
                if await ran_out_of_memory(self._engine, self._id, state):
                    return Exit(found.code, Reason.OUT_OF_MEMORY)
        return found

    async def _state_after_waiting(self) -> Mapping[str, Any]:
        with suppress(TimeoutError):
            async with asyncio.timeout(_POLL_SECONDS):
                await self._engine.wait(self._id)
        return dict((await self._engine.inspect(self._id))["State"])

    def _gone(self, error: StatusError) -> Exit:
        if self._exit is not None:
            return self._exit
        if self._leaving:
            return Exit(None, Reason.CANCELLED)
        message = f"the container of the Sandbox {self._name} was removed by another program: {error}"
        raise SandboxLostError(message) from error

    async def _stderr(self, state: Mapping[str, Any]) -> str:
        if state["ExitCode"] == 0:
            return ""
        try:
            async with (
                asyncio.timeout(ANSWER_SECONDS),
                self._engine.log(self._id, stderr="1", tail="40") as response,
            ):
                log = b"".join([chunk async for chunk in response.chunks()])
                return text_of(log, LogStream.STDERR)[-DETAIL_BYTES:].strip()
        except (ConnectionBrokenError, StatusError, TimeoutError, ValueError):
            return ""


def exit_of(state: Mapping[str, Any], *, leaving: bool, stderr: str) -> Exit:
    """Return how a container ended, from its `State` (Engine API, ContainerInspect); `leaving`: we stopped it."""
    code = state["ExitCode"]
    if code == 0:
        return Exit(0, Reason.COMPLETED)
    if state["OOMKilled"] and code in _KILLED:
        # The flag is set for any killed process in the container; that may have been a tool's.
        return Exit(code, Reason.OUT_OF_MEMORY, stderr)
    if leaving:
        return Exit(code, Reason.CANCELLED, stderr)
    if code in _KILLED:
        return Exit(code, Reason.LOST, "its container was killed from outside")
    return Exit(code, Reason.ERROR, stderr or state.get("Error", ""))


async def removed(engine: DockerClient, container: str) -> None:
    """Remove a container by force and wait until it is gone; one that is already gone is no error."""
    try:
        # Podman fails if the container ends meanwhile (4.3.1: "could not be stopped: … container state improper").
        failed = {HTTPStatus.INTERNAL_SERVER_ERROR}
        await retrying(lambda: engine.delete(container), _REMOVAL_PAUSES, idempotent=False, statuses=failed)
    except StatusError as error:
        if is_status(error, HTTPStatus.CONFLICT):  # another client is removing it
            await _absence(engine, container)
        elif not is_status(error, HTTPStatus.NOT_FOUND):
            raise


async def _absence(engine: DockerClient, container: str) -> None:
    try:
        await engine.wait(container, "removed")
    except StatusError as error:
        if not is_status(error, HTTPStatus.NOT_FOUND):
            raise
