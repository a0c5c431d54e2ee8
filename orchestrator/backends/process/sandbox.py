"""One process and its descendants: lines, end, removal."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncGenerator, Callable
from subprocess import Popen
from typing import IO

from orchestrator.backends.line_splitter import LineSplitter
from orchestrator.errors import BackendError, SandboxLostError
from orchestrator.sandbox.api import Exit, Reason

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
        """Keep the end of the data so far."""
        self._kept += data
        del self._kept[:-_DETAIL_BYTES]

    @property
    def text(self) -> str:
        """The kept bytes as text."""
        return self._kept.decode(errors="replace").strip()


class ProcessSandbox:
    """A Sandbox that is a session leader.

    Without `child` the process was started by another orchestrator: its lines and its exit code are not available.
    """

    def __init__(self, name: str, pid: int, line_bytes: int, child: Popen[bytes] | None = None) -> None:
        self.dropped = 0
        self._name = name
        self._pid = pid
        self._line_bytes = line_bytes
        self._child = child
        self._is_being_removed = False
        self._exited = asyncio.Event()
        self._code: int | None = None
        self._stdout = asyncio.StreamReader()
        self._stderr = Tail()
        self._pipes: list[asyncio.ReadTransport] = []
        self._pidfd: int | None = None

    @property
    def name(self) -> str:
        """The name it was launched under."""
        return self._name

    async def open(self) -> None:
        """Start reading its pipes and watching for its end.

        Raises:
            SandboxLostError: the process is gone, and it was not our child.
        """
        loop = asyncio.get_running_loop()
        try:
            self._pidfd = os.pidfd_open(self._pid)
        except ProcessLookupError as error:
            message = f"the process {self._pid} of the Sandbox {self._name} is gone"
            raise SandboxLostError(message) from error
        loop.add_reader(self._pidfd, self._on_exit, self._pidfd)
        if self._child is not None:
            await self._read(self._child.stdout, lambda: asyncio.StreamReaderProtocol(self._stdout))
            await self._read(self._child.stderr, lambda: self._stderr)
        else:
            self._stdout.feed_eof()

    async def lines(self) -> AsyncGenerator[bytes, None]:
        """Yield the lines of stdout. They end when no process of the session holds stdout open."""
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
        """Return at once: a launched process runs."""

    async def wait(self) -> Exit:
        """Wait for the end of the process.

        Raises:
            SandboxLostError: another orchestrator started it, so its exit code is unknown.
        """
        await self._exited.wait()
        if self._code == 0:
            return Exit(0, Reason.COMPLETED)
        if self._is_being_removed:
            return Exit(self._code, Reason.CANCELLED, self._stderr.text)
        if self._code == _KILLED:
            return Exit(self._code, Reason.LOST, "its process was killed from outside")
        if self._code is None:
            message = f"the Sandbox {self._name} ended, but only the orchestrator that started it knows how"
            raise SandboxLostError(message)
        return Exit(self._code, Reason.ERROR, self._stderr.text)

    async def remove(self, grace: float = GRACE_SECONDS) -> None:
        """Stop the process if it still runs, end all of its session, and close its pipes.

        `grace` is the time between SIGTERM and SIGKILL, in seconds.

        Raises:
            BackendError: the process does not end.
        """
        try:
            if self._pidfd is not None and not self._exited.is_set():
                self._is_being_removed = True
                await self._stop(self._pidfd, grace)
        finally:
            self._close()

    async def _stop(self, pidfd: int, grace: float) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, signal.SIGTERM)
        try:
            async with asyncio.timeout(grace):
                await self._exited.wait()
        except TimeoutError:
            await self._kill()

    async def _kill(self) -> None:
        self._kill_session()
        try:
            async with asyncio.timeout(_KILL_SECONDS):
                await self._exited.wait()
        except TimeoutError as error:
            message = f"the process {self._pid} of the Sandbox {self._name} does not end: look at it with `ps`"
            raise BackendError(message) from error

    async def _read(self, pipe: IO[bytes] | None, protocol: Callable[[], asyncio.Protocol]) -> None:
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(protocol, pipe)
        self._pipes.append(transport)

    def _on_exit(self, pidfd: int) -> None:
        asyncio.get_running_loop().remove_reader(pidfd)
        # Before the process is reaped, while its pid cannot be reused. As in a container, no process outlives it.
        self._kill_session()
        if self._child is not None:
            code = self._child.wait()
            self._code = code if code >= 0 else _SIGNALLED - code
        self._exited.set()

    def _kill_session(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._pid, signal.SIGKILL)

    def _close(self) -> None:
        for pipe in self._pipes:
            pipe.close()
        if self._pidfd is not None:
            asyncio.get_running_loop().remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = None
