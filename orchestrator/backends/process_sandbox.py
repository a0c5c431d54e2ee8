"""One process and its descendants: lines, end, removal."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncGenerator, Callable
from subprocess import Popen
from typing import IO

from orchestrator.backends.lines import LineSplitter
from orchestrator.errors import BackendError, SandboxLostError
from orchestrator.sandbox import Exit, Reason

GRACE_SECONDS = 3.0
"""Between SIGTERM and SIGKILL, as on Docker."""

_KILL_SECONDS = 10.0
_DETAIL_BYTES = 4096
_CHUNK = 64 * 1024
_SIGNALLED = 128
_KILLED = _SIGNALLED + signal.SIGKILL


class Tail(asyncio.Protocol):
    """Keeps the last bytes of a pipe."""

    def __init__(self) -> None:
        self._kept = bytearray()

    def data_received(self, data: bytes) -> None:
        """Keep the end of what came so far."""
        self._kept += data
        del self._kept[:-_DETAIL_BYTES]

    @property
    def text(self) -> str:
        """What is kept."""
        return self._kept.decode(errors="replace").strip()


class ProcessSandbox:
    """A Sandbox that is a process leading a session of its own.

    Another orchestrator's child has no `child` here: then its lines and its exit code are out of reach.
    """

    def __init__(self, name: str, pid: int, line_bytes: int, child: Popen[bytes] | None = None) -> None:
        self.dropped = 0
        self._name = name
        self._pid = pid
        self._line_bytes = line_bytes
        self._child = child
        self._leaving = False
        self._over = asyncio.Event()
        self._code: int | None = None
        self._stdout = asyncio.StreamReader()
        self._stderr = Tail()
        self._pipes: list[asyncio.ReadTransport] = []
        self._watched: int | None = None

    @property
    def name(self) -> str:
        """The name it was launched under."""
        return self._name

    async def open(self) -> None:
        """Begin to read its pipes and to watch for its end.

        Raises:
            SandboxLostError: the process is gone, and it was not our child.
        """
        loop = asyncio.get_running_loop()
        try:
            self._watched = os.pidfd_open(self._pid)
        except ProcessLookupError as error:
            message = f"the process {self._pid} of the Sandbox {self._name} is gone"
            raise SandboxLostError(message) from error
        loop.add_reader(self._watched, self._ended, self._watched)
        if self._child is not None:
            await self._read(self._child.stdout, lambda: asyncio.StreamReaderProtocol(self._stdout))
            await self._read(self._child.stderr, lambda: self._stderr)
        else:
            self._stdout.feed_eof()

    async def lines(self) -> AsyncGenerator[bytes, None]:
        """Read stdout. It ends when the last process of the session that holds it ends."""
        splitter = LineSplitter(self._line_bytes)
        try:
            while chunk := await self._stdout.read(_CHUNK):
                for line in splitter.feed(chunk):
                    yield line
            if (rest := splitter.rest()) is not None:
                yield rest
        finally:
            self.dropped += splitter.dropped

    async def started(self) -> None:
        """Return: what was launched runs."""

    async def wait(self) -> Exit:
        """Wait for the end of the process.

        Raises:
            SandboxLostError: it was another orchestrator's child, so nobody can say how it ended.
        """
        await self._over.wait()
        if self._code == 0:
            return Exit(0, Reason.COMPLETED)
        if self._leaving:
            return Exit(self._code, Reason.CANCELLED, self._stderr.text)
        if self._code == _KILLED:
            return Exit(self._code, Reason.LOST, "its process was killed from outside")
        if self._code is None:
            message = f"the Sandbox {self._name} ended, but only the orchestrator that started it knows how"
            raise SandboxLostError(message)
        return Exit(self._code, Reason.ERROR, self._stderr.text)

    async def remove(self, grace: float = GRACE_SECONDS) -> None:
        """Stop the process if it still runs, end all of its session, and close its pipes.

        Between SIGTERM and SIGKILL it has `grace` seconds.

        Raises:
            BackendError: it does not end.
        """
        try:
            if self._watched is not None and not self._over.is_set():
                self._leaving = True
                await self._stop(self._watched, grace)
        finally:
            self._close()

    async def _stop(self, watched: int, grace: float) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(watched, signal.SIGTERM)
        try:
            async with asyncio.timeout(grace):
                await self._over.wait()
        except TimeoutError:
            await self._kill()

    async def _kill(self) -> None:
        self._kill_session()
        try:
            async with asyncio.timeout(_KILL_SECONDS):
                await self._over.wait()
        except TimeoutError as error:
            message = f"the process {self._pid} of the Sandbox {self._name} does not end: look at it with `ps`"
            raise BackendError(message) from error

    async def _read(self, pipe: IO[bytes] | None, protocol: Callable[[], asyncio.Protocol]) -> None:
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(protocol, pipe)
        self._pipes.append(transport)

    def _ended(self, watched: int) -> None:
        asyncio.get_running_loop().remove_reader(watched)
        # Before the process is reaped, while nobody else can have its number. As in a container, nobody outlives it.
        self._kill_session()
        if self._child is not None:
            code = self._child.wait()
            self._code = code if code >= 0 else _SIGNALLED - code
        self._over.set()

    def _kill_session(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._pid, signal.SIGKILL)

    def _close(self) -> None:
        for pipe in self._pipes:
            pipe.close()
        if self._watched is not None:
            asyncio.get_running_loop().remove_reader(self._watched)
            os.close(self._watched)
            self._watched = None
