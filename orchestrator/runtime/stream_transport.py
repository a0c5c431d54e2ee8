"""The transport to the broker over the container's own stdin and stdout, which the host reaches through its engine.

The host begins an epoch each time it attaches. Each epoch starts with the number of bytes of the spool that the host
has. The death of an orchestrator ends the connections after a while, and nothing else: the next one begins a new epoch.
"""

import asyncio
import os
import select
import time
from contextlib import suppress
from pathlib import Path

from orchestrator.runtime.transport import Connection
from orchestrator.wire.layout import SPOOL_NAME
from orchestrator.wire.multiplexer import Multiplexer, StreamBrokenError, number_of, read_frames
from orchestrator.wire.run import ExitCode
from orchestrator.wire.stream import NUMBER, PAYLOAD_BYTES, FrameSplitter, Kind, StreamFrame

SILENCE_SECONDS = 15.0
"""Seconds without a frame until the broker counts as gone: the host sends one every 5 s, and stdin has no end then."""

_READ_BYTES = 64 * 1024
_FLUSH_SECONDS = 2.0
_FIRST_HELLO_SECONDS = 1.0


class StreamTransport:
    """Connections to the broker as channels of one stream, which carries the spool too.

    Args:
        in_fd: the stream from the host.
        out_fd: the stream to the host.
        state: the directory in which the spool is made.
    """

    def __init__(self, in_fd: int, out_fd: int, state: Path) -> None:
        self._in, self._out = in_fd, out_fd
        self._spool = os.open(state / SPOOL_NAME, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._sent = 0
        self._unsent = b""
        self._lines = FrameSplitter()
        self._epoch: Multiplexer | None = None
        self._alive = asyncio.Event()
        self._deadline: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_growing = self._is_blocked = False

    async def verify_isolation(self) -> None:
        """Do nothing: the container has no network."""

    async def verify_isolation_forever(self) -> None:
        """Wait forever: a container without a network cannot get one."""
        await asyncio.Event().wait()

    async def connect(self) -> Connection:
        """Open a channel to the broker.

        Raises:
            ConnectionResetError: no orchestrator is attached.
        """
        self._start()
        with suppress(TimeoutError):
            async with asyncio.timeout(_FIRST_HELLO_SECONDS):
                await self._alive.wait()
        if self._epoch is None:
            message = "no orchestrator is attached to this container"
            raise ConnectionResetError(message)
        return self._epoch.open()

    def grow(self, _line: bytes) -> None:
        """Send the spool's new bytes soon: a line was added to it."""
        if self._loop is not None and not self._is_growing:
            self._is_growing = True
            self._loop.call_soon_threadsafe(self._send_growth)

    def close(self) -> None:
        """Send what is left of the spool, for at most 2 s: the host can also read it from the container's volume."""
        deadline = time.monotonic() + _FLUSH_SECONDS
        if self._flush(deadline) and self._epoch is not None:
            self._epoch.control(Kind.END, 0, NUMBER.pack(self._sent))
            self._flush(deadline)
        if self._loop is not None:
            self._loop.remove_reader(self._in)
            self._loop.remove_writer(self._out)
            self._loop = None
        self._end_epoch(ConnectionResetError("the link is closed"))

    def _flush(self, deadline: float) -> bool:
        """Write all that can be sent; return whether nothing is left."""
        waiting = select.poll()
        waiting.register(self._out, select.POLLOUT)
        while self._fill():
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            waiting.poll(left * 1000)
            if not self._write():
                return False
        return True

    def _start(self) -> None:
        if self._loop is not None:
            return
        self._loop = asyncio.get_running_loop()
        for fd in (self._in, self._out):
            os.set_blocking(fd, False)
        self._loop.add_reader(self._in, self._read)

    def _read(self) -> None:
        try:
            chunk = os.read(self._in, _READ_BYTES)
        except BlockingIOError:
            return
        if not chunk:
            asyncio.get_running_loop().remove_reader(self._in)
            self._end_epoch(ConnectionResetError("stdin has ended"))
            return
        self._extend()
        epoch = b"" if self._epoch is None else self._epoch.epoch
        for frame in read_frames(self._lines.feed(chunk), epoch):
            try:
                if frame.kind is Kind.HELLO:
                    self._begin_epoch(frame)
                elif self._epoch is not None and frame.epoch == self._epoch.epoch:
                    own = self._epoch.take(frame)
                    if own is not None and own.kind is Kind.PING:
                        self._epoch.control(Kind.PING)
            except StreamBrokenError as error:
                self._end_epoch(error)

    def _begin_epoch(self, hello: StreamFrame) -> None:
        self._end_epoch(ConnectionResetError("another orchestrator attached"))
        self._sent = number_of(hello.payload)
        self._epoch = Multiplexer(hello.epoch, self._pump, more=self._more)
        self._epoch.take(hello)
        self._epoch.control(Kind.HELLO, 0, NUMBER.pack(os.fstat(self._spool).st_size))
        self._extend()
        self._alive.set()

    def _end_epoch(self, error: Exception) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        self._alive.clear()
        epoch, self._epoch = self._epoch, None
        if epoch is not None:
            epoch.lose(error)

    def _extend(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        silent = ConnectionResetError(f"the broker was silent for {SILENCE_SECONDS:g} s")
        self._deadline = asyncio.get_running_loop().call_later(SILENCE_SECONDS, self._end_epoch, silent)

    def _send_growth(self) -> None:
        self._is_growing = False
        self._pump()

    def _more(self) -> bytes:
        data = os.pread(self._spool, PAYLOAD_BYTES - NUMBER.size, self._sent)
        if not data:
            if os.fstat(self._spool).st_size < self._sent:
                # A program of the Expert cut it. What it had is at the host; what comes would be taken for its rest.
                os.write(2, b"the event spool shrank: a program in this Sandbox changed it\n")
                os._exit(ExitCode.FAULT)
            return b""
        payload = NUMBER.pack(self._sent) + data
        self._sent += len(data)
        return payload

    def _fill(self) -> bool:
        """Whether a line waits to be written; take the next one if none does."""
        if not self._unsent and self._epoch is not None:
            self._unsent = next(self._epoch.lines(), b"")
        return bool(self._unsent)

    def _write(self) -> bool:
        """Write what fits; return whether the other end still reads."""
        try:
            self._unsent = self._unsent[os.write(self._out, self._unsent) :]
        except BlockingIOError:
            pass
        except OSError as error:
            self._unsent = b""
            self._end_epoch(error)
            return False
        return True

    def _pump(self) -> None:
        if self._loop is None:
            return
        while self._fill():
            before = len(self._unsent)
            if not self._write():
                return
            if len(self._unsent) == before:
                if not self._is_blocked:
                    self._is_blocked = True
                    self._loop.add_writer(self._out, self._pump)
                return
        if self._is_blocked:
            self._is_blocked = False
            self._loop.remove_writer(self._out)
