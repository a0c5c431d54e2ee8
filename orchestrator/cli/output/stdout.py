"""Events on stdout, whose reader may be slow or gone, and whose disk may be full."""

import asyncio
import os
import select
import stat

from orchestrator.errors import OrchestratorError


class Stdout:
    """Writes whole lines to a descriptor without blocking the event loop.

    A pipe or terminal that polls as writable takes PIPE_BUF bytes at once (POSIX). The descriptor stays blocking:
    its mode is shared with the shell and other processes.
    """

    def __init__(self, fd: int = 1) -> None:
        self._fd = fd
        self._is_regular_file: bool | None = None
        self._poll = select.poll()
        self._rest = memoryview(b"")

    async def write(self, line: bytes) -> None:
        """Write `line`, which has no newline. If a call is cancelled in the middle, the next one writes the rest first.

        Raises:
            BrokenPipeError: the reader is gone.
            OrchestratorError: the line cannot be written.
        """
        await self.finish()
        self._rest = memoryview(line + b"\n")
        await self.finish()

    async def finish(self) -> None:
        """Write the rest of a line whose writing was cancelled.

        Raises:
            BrokenPipeError: the reader is gone.
            OrchestratorError: the line cannot be written.
        """
        try:
            while self._rest:
                if self._is_file():
                    self._rest = self._rest[os.write(self._fd, self._rest) :]
                    continue
                if not self._poll.poll(0):
                    await self._writable()
                self._rest = self._rest[os.write(self._fd, self._rest[: select.PIPE_BUF]) :]
        except BrokenPipeError:
            raise
        except OSError as error:
            message = f"events cannot be written to stdout: {error.strerror}; free space, or redirect stdout elsewhere"
            raise OrchestratorError(message) from error

    def _is_file(self) -> bool:
        if self._is_regular_file is None:
            self._is_regular_file = stat.S_ISREG(os.fstat(self._fd).st_mode)
            self._poll.register(self._fd, select.POLLOUT)
        return self._is_regular_file

    async def _writable(self) -> None:
        loop = asyncio.get_running_loop()
        ready = asyncio.Event()
        loop.add_writer(self._fd, ready.set)
        try:
            await ready.wait()
        finally:
            loop.remove_writer(self._fd)
