"""Docker's log stream: frames of an 8-byte header and a payload.

The header is the stream (1 stdout, 2 stderr, 3 a fault of the engine itself) in its first byte and the payload's
length, big-endian, in its last four (Engine API, "Attach to a container: Stream format"). A line longer than 16 KiB
comes in several frames. Both Python clients drop the stream's number, so the frames are read here.
"""

import asyncio
import struct
from collections.abc import Iterator
from enum import IntEnum

from orchestrator.backends.line_splitter import LineSplitter

_HEADER = struct.Struct(">BxxxL")
_FAULT_BYTES = 1024


class LogStream(IntEnum):
    """Where a frame's payload comes from."""

    STDIN = 0
    STDOUT = 1
    STDERR = 2
    FAULT = 3


class LogFrames:
    """Splits the stream into frames as bytes arrive, keeping no more than a header."""

    def __init__(self) -> None:
        self._header = bytearray()
        self._stream = LogStream.STDOUT
        self._missing = 0

    def feed(self, chunk: bytes) -> Iterator[tuple[LogStream, bytes]]:
        """Take the next bytes and yield the parts of payloads in them.

        Raises:
            ValueError: the bytes are not a stream of frames.
        """
        at = 0
        while at < len(chunk):
            if self._missing:
                part = chunk[at : at + self._missing]
                self._missing -= len(part)
                at += len(part)
                yield self._stream, part
                continue
            taken = chunk[at : at + _HEADER.size - len(self._header)]
            self._header += taken
            at += len(taken)
            if len(self._header) == _HEADER.size:
                number, self._missing = _HEADER.unpack(self._header)
                self._stream = LogStream(number)
                self._header.clear()


class LogLines:
    """The lines of stdout in a log. `fault` is the engine's report of a failure of the log; nothing follows it."""

    def __init__(self, limit: int) -> None:
        self.fault = ""
        self._frames = LogFrames()
        self._splitter = LineSplitter(limit)

    @property
    def dropped(self) -> int:
        """How many lines were dropped because they were too long."""
        return self._splitter.dropped

    def feed(self, chunk: bytes) -> list[bytes]:
        """Take the next bytes of the log and return the lines they complete."""
        lines: list[bytes] = []
        try:
            for stream, part in self._frames.feed(chunk):
                if stream is LogStream.FAULT:
                    self.fault = (self.fault + part.decode(errors="replace"))[:_FAULT_BYTES]
                elif stream is LogStream.STDOUT and not self.fault:
                    lines += self._splitter.feed(part)
        except ValueError as error:
            self.fault = f"not a log stream: {error}"
        return lines

    def rest(self) -> bytes | None:
        """Return the last line if it has no newline."""
        return None if self.fault else self._splitter.rest()


def text_of(log: bytes, stream: LogStream) -> str:
    """Return everything that a complete log contains of one stream."""
    return b"".join(part for source, part in LogFrames().feed(log) if source is stream).decode(errors="replace")


class AttachedStdout:
    """The stdout of an attached container as a stream of bytes, without the engine's frames."""

    def __init__(self, reader: asyncio.StreamReader, early: bytes) -> None:
        self._reader = reader
        self._frames = LogFrames()
        self._rest = self._stdout(early)

    async def read(self, size: int) -> bytes:
        """Return the next bytes, at least one; none at the end."""
        while not self._rest:
            chunk = await self._reader.read(size)
            if not chunk:
                return b""
            self._rest = self._stdout(chunk)
        found, self._rest = self._rest, b""
        return found

    def _stdout(self, chunk: bytes) -> bytes:
        return b"".join(part for stream, part in self._frames.feed(chunk) if stream is LogStream.STDOUT)
