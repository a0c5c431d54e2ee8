"""The host's end of a link over a container's stdin and stdout: its connections, and a mirror of its spool.

See docs/decisions.md, "The link of a Sandbox may be its own stdin and stdout".
"""

import asyncio
import os
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Protocol

from orchestrator.backends.line_splitter import LineSplitter
from orchestrator.wire.line import SPOOL_BYTES
from orchestrator.wire.multiplexer import Multiplexer, StreamBrokenError, number_of, read_frames
from orchestrator.wire.stream import EPOCH_BYTES, NUMBER, FrameSplitter, Kind, StreamFrame

PING_SECONDS = 5.0
"""Between frames that show the Sandbox that its broker is still there: stdin has no end when an orchestrator dies."""

SILENCE_SECONDS = 15.0
"""Seconds without a frame until a stream counts as broken: a Sandbox answers each of the host's."""

_READ_BYTES = 256 * 1024
_WAITING_CONNECTIONS = 256

Accept = Callable[[asyncio.StreamReader, asyncio.StreamWriter], None]
"""Takes a connection that a Sandbox opened."""


class ByteReader(Protocol):
    """A stream of bytes."""

    async def read(self, size: int, /) -> bytes:
        """Return the next bytes, at least one; none at the end."""


class MirrorFullError(Exception):
    """The host's disk has no room for the mirror of a spool."""


class StreamLink:
    """The link of one Sandbox, over any number of streams, one after the other.

    `spool` is the mirror: a file of the host, to which the bytes of the Sandbox's spool are added. `accept` is called
    with each connection that the Sandbox opens, once the mirror has all that the spool had when the first stream began:
    what a Sandbox has done decides what it may do. `line_bytes` bounds a line, newline included.
    """

    def __init__(self, accept: Accept, spool: Path, line_bytes: int) -> None:
        self._accept = accept
        self._mirror = os.open(spool, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        self._size = os.fstat(self._mirror).st_size
        self._line_bytes = line_bytes
        self._grown = asyncio.Event()
        self._is_ended = False
        self._final_size: int | None = None
        self._first_size: int | None = None
        self._waiting: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    @property
    def is_whole(self) -> bool:
        """Whether the Sandbox wrote its last byte and the mirror has it."""
        return self._final_size == self._size

    async def serve(self, reader: ByteReader, writer: asyncio.StreamWriter) -> None:
        """Work one stream, until it ends or breaks.

        Raises:
            OSError, ValueError: the stream broke.
            MirrorFullError: the host's disk has no room for the mirror.
        """
        wake = asyncio.Event()
        epoch = Multiplexer(os.urandom(EPOCH_BYTES), wake.set, self._admit)
        # A torn line of an orchestrator before this one would swallow the first frame.
        writer.write(b"\n")
        epoch.control(Kind.HELLO, 0, NUMBER.pack(self._size))
        error: Exception | None = ConnectionResetError("the stream of the Sandbox broke")
        try:
            async with asyncio.TaskGroup() as tasks:
                sending = [tasks.create_task(work) for work in (_send(epoch, wake, writer), _ping(epoch))]
                await self._receive(epoch, reader)
                for task in sending:
                    task.cancel()
            error = None  # What a Sandbox sent before its end counts.
        except* (OSError, ValueError, MirrorFullError) as group:
            raise group.exceptions[0] from None
        finally:
            epoch.lose(error)
            self._waiting.clear()

    async def lines(self) -> AsyncGenerator[bytes, None]:
        """Yield the lines of the mirror as it grows, until `end`."""
        read, splitter = 0, LineSplitter(self._line_bytes)
        while True:
            while data := os.pread(self._mirror, _READ_BYTES, read):
                read += len(data)
                for line in splitter.feed(data):
                    yield line
            if self._is_ended:
                return
            await self._grown.wait()
            self._grown.clear()

    def add(self, offset: int, data: bytes) -> None:
        """Add bytes of the Sandbox's spool that begin at `offset`; those that the mirror has are skipped.

        More than the orchestrator reads of a spool is dropped.

        Raises:
            StreamBrokenError: bytes before them are missing.
            MirrorFullError: the host's disk has no room for them.
        """
        if self._size > SPOOL_BYTES:
            return
        if offset > self._size:
            message = f"{offset - self._size} bytes of the spool are missing"
            raise StreamBrokenError(message)
        new = memoryview(data)[self._size - offset :]
        while new and self._size <= SPOOL_BYTES:
            try:
                written = os.write(self._mirror, new)
            except OSError as error:
                raise MirrorFullError from error
            self._size += written
            new = new[written:]
        self._grown.set()
        self._admit_waiting()

    def end(self) -> None:
        """End `lines` after what the mirror has: nothing more will come."""
        self._is_ended = True
        self._grown.set()

    def close(self) -> None:
        """Close the mirror; no `lines` may be in use."""
        os.close(self._mirror)

    async def _receive(self, epoch: Multiplexer, reader: ByteReader) -> None:
        splitter, is_answered = FrameSplitter(), False
        while True:
            async with asyncio.timeout(SILENCE_SECONDS):
                chunk = await reader.read(_READ_BYTES)
            if not chunk:
                return
            for frame in read_frames(splitter.feed(chunk), epoch.epoch):
                if frame.epoch != epoch.epoch:
                    if is_answered:
                        message = "another orchestrator attached to the Sandbox"
                        raise StreamBrokenError(message)
                    continue
                own = epoch.take(frame)
                if own is not None:
                    self._take(own, is_first=not is_answered)
                is_answered = True

    def _take(self, frame: StreamFrame, *, is_first: bool) -> None:
        match frame.kind:
            case Kind.HELLO if is_first and self._first_size is None:
                self._first_size = min(number_of(frame.payload), SPOOL_BYTES)
                self._admit_waiting()
            case Kind.SPOOL:
                self.add(number_of(frame.payload), frame.payload[NUMBER.size :])
            case Kind.END:
                self._final_size = number_of(frame.payload)

    def _admit(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._waiting) >= _WAITING_CONNECTIONS:
            writer.transport.abort()
            return
        self._waiting.append((reader, writer))
        self._admit_waiting()

    def _admit_waiting(self) -> None:
        if self._waiting and self._first_size is not None and self._size >= self._first_size:
            waiting, self._waiting = self._waiting, []
            for reader, writer in waiting:
                self._accept(reader, writer)


async def _send(epoch: Multiplexer, wake: asyncio.Event, writer: asyncio.StreamWriter) -> None:
    while True:
        await wake.wait()
        wake.clear()
        for line in epoch.lines():
            writer.write(line)
            await writer.drain()


async def _ping(epoch: Multiplexer) -> None:
    while True:
        await asyncio.sleep(PING_SECONDS)
        epoch.control(Kind.PING)
