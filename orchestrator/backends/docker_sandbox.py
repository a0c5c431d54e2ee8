"""One container: its lines, its end, its removal."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import suppress
from http import HTTPStatus
from typing import Any

from orchestrator.backends.docker_engine import ANSWER_SECONDS, Engine, is_status, patiently
from orchestrator.backends.docker_log import LogLines, Stream, text_of
from orchestrator.backends.http import BrokenError, RefusalError
from orchestrator.errors import BackendError, SandboxLostError
from orchestrator.sandbox import Exit, Reason

GRACE_SECONDS = 3
"""Between SIGTERM and SIGKILL. The runtime ends at once on SIGTERM; it has nothing to save that the host lacks."""

_DETAIL_BYTES = 4096
_KILLED = {137, 255}
"""128 and SIGKILL, which nobody inside can send to PID 1 (pid_namespaces(7)); 255 where the engine itself lost it."""
_LOOK_SECONDS = 30.0
"""How long a wait may be silent before the container is looked at: a connection can die without a word."""
AWAY_SECONDS = 600.0
"""How long an engine may be away before its Sandboxes count as lost; they work on meanwhile."""
_START_PAUSES = (0.5, 1.5)
"""Between tries to start a container: an engine that ends takes its shims away before it stops to answer."""
_PAUSES = (0.1, 0.2, 0.5, 1.0, 2.0)


class DockerSandbox:
    """A Sandbox in a container of the Docker engine. `note` takes remarks for a log."""

    def __init__(
        self, engine: Engine, name: str, line_bytes: int, note: Callable[[str], None], container: str | None = None
    ) -> None:
        self.dropped = 0
        self._note = note
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
        """Create the container, not started. One that an engine made that left before it said so is taken."""
        self._asked_for = True
        try:
            self._container = await patiently(lambda: self._engine.create(self._name, body))
        except BrokenError:
            self._container = await self._made_after_all() or await self._engine.create(self._name, body)
        except RefusalError:
            # What has the name now, if anything, is not ours.
            self._asked_for = False
            raise

    async def start(self) -> None:
        """Start the container, unless it is started already. What an engine that is ending fails at is tried again.

        Raises:
            SandboxLostError: the engine left in the middle, and cannot start what it had begun to.
        """
        for pause in _START_PAUSES:
            try:
                return await patiently(self._begin, again=True)
            except RefusalError as error:
                if error.status < HTTPStatus.INTERNAL_SERVER_ERROR:
                    raise
                await asyncio.sleep(pause)
        try:
            await patiently(self._begin, again=True)
        except RefusalError as error:
            if not self._cut:
                raise
            message = f"the Docker engine left while it started the Sandbox {self._name}, and now it cannot: {error}"
            raise SandboxLostError(message) from error

    async def lines(self) -> AsyncGenerator[bytes, None]:
        """Follow stdout from its beginning. Ends early where the log is cut; what is missing is in the spool."""
        found = LogLines(self._line_bytes)
        try:
            async with self._engine.log(self._id, stdout="1", follow="1") as answer:
                async for chunk in answer.chunks():
                    for line in found.feed(chunk):
                        yield line
                    if found.fault:
                        self._note(f"the log of the Sandbox {self._name} failed: {found.fault}")
                        return
            if (rest := found.rest()) is not None:
                yield rest
        except (BrokenError, RefusalError) as error:
            self._note(f"the log of the Sandbox {self._name} was cut: {error}")
        finally:
            self.dropped += found.dropped

    async def started(self) -> None:
        """Return: what was launched runs."""

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
            BackendError: it may still be there.
        """
        if self._container is None and not self._asked_for:
            return
        self._leaving = True
        async with self._engine.asked(f"remove the Sandbox {self._name}", GRACE_SECONDS + ANSWER_SECONDS):
            # An engine that took too long to answer may have made it all the same.
            self._container = self._container or await self._made_after_all()
            if self._container is None:
                return
            # An engine that is just being restarted is waited for: it would find the container again.
            await patiently(self._taken_away, again=True)

    async def _begin(self) -> None:
        try:
            await self._engine.start(self._id)
        except BrokenError:
            self._cut = True
            raise

    async def _taken_away(self) -> None:
        if self._exit is None:
            await self._stop()
        await removed(self._engine, self._id)

    async def _made_after_all(self) -> str | None:
        try:
            return str((await patiently(lambda: self._engine.inspect(self._name), again=True))["Id"])
        except RefusalError as error:
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
        except RefusalError:
            return
        self._exit = self._exit or exit_of(state, leaving=True, stderr="")

    async def _end(self) -> Exit:
        clock = asyncio.get_running_loop().time
        answered, pauses = clock(), iter(_PAUSES)
        while clock() - answered < AWAY_SECONDS:
            try:
                state = await self._state_after_waiting()
                if not state["Running"]:
                    return exit_of(state, leaving=self._leaving, stderr=await self._stderr(state))
                answered, pauses = clock(), iter(_PAUSES)
            except RefusalError as error:
                if is_status(error, HTTPStatus.NOT_FOUND):
                    return self._gone(error)
            except (BrokenError, TimeoutError):
                pass  # the engine may be restarting; the container's state is asked for again
            await asyncio.sleep(next(pauses, _PAUSES[-1]))
        message = f"the Docker engine at {self._engine.address} no longer says how the Sandbox {self._name} is"
        raise SandboxLostError(message)

    async def _state_after_waiting(self) -> Mapping[str, Any]:
        with suppress(TimeoutError):
            async with asyncio.timeout(_LOOK_SECONDS):
                await self._engine.wait(self._id)
        return dict((await self._engine.inspect(self._id))["State"])

    def _gone(self, error: RefusalError) -> Exit:
        if self._exit is not None:
            return self._exit
        if self._leaving:
            return Exit(None, Reason.CANCELLED)
        message = f"the container of the Sandbox {self._name} was removed by somebody else: {error}"
        raise SandboxLostError(message) from error

    async def _stderr(self, state: Mapping[str, Any]) -> str:
        if state["ExitCode"] == 0:
            return ""
        try:
            async with (
                asyncio.timeout(ANSWER_SECONDS),
                self._engine.log(self._id, stderr="1", tail="40") as answer,
            ):
                log = b"".join([chunk async for chunk in answer.chunks()])
                return text_of(log, Stream.STDERR)[-_DETAIL_BYTES:].strip()
        except (BrokenError, RefusalError, TimeoutError, ValueError):
            return ""


def exit_of(state: Mapping[str, Any], *, leaving: bool, stderr: str) -> Exit:
    """Read how a container ended from its `State` (Engine API, ContainerInspect); `leaving` says that we stopped it."""
    code = state["ExitCode"]
    if code == 0:
        return Exit(0, Reason.COMPLETED)
    if state["OOMKilled"] and code in _KILLED:
        # It is set for whichever process in the container was killed; that may have been a tool's.
        return Exit(code, Reason.OUT_OF_MEMORY, stderr)
    if leaving:
        return Exit(code, Reason.CANCELLED, stderr)
    if code in _KILLED:
        return Exit(code, Reason.LOST, "its container was killed from outside")
    return Exit(code, Reason.ERROR, stderr or state.get("Error", ""))


async def removed(engine: Engine, container: str) -> None:
    """Remove a container by force and wait until it is gone; one that is gone already is no error."""
    try:
        await engine.delete(container)
    except RefusalError as error:
        if is_status(error, HTTPStatus.CONFLICT):  # somebody else is removing it
            await _absence(engine, container)
        elif not is_status(error, HTTPStatus.NOT_FOUND):
            raise


async def _absence(engine: Engine, container: str) -> None:
    try:
        await engine.wait(container, "removed")
    except RefusalError as error:
        if not is_status(error, HTTPStatus.NOT_FOUND):
            raise
