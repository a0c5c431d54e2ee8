"""The frames of a link that is one stream of bytes, such as a container's own stdin and stdout.

A frame is one line. Its bytes are escaped so that a newline only ends a frame: a reader that joins in the middle, or
finds a line that another writer cut, drops that line and continues with the next. Each frame has the epoch of its link,
its number in that epoch and a checksum, so a lost or mixed frame is noticed.
"""

import struct
import zlib
from dataclasses import dataclass
from enum import IntEnum

PAYLOAD_BYTES = 32 * 1024
"""The most bytes that one frame carries, so that no connection keeps the others waiting for long."""

EPOCH_BYTES = 4
NUMBER = struct.Struct(">Q")
"""A size or an offset in a payload."""

_HEADER = struct.Struct(f">{EPOCH_BYTES}sIBI")
_CHECKSUM = struct.Struct(">I")
_LINE_BYTES = 2 * (_HEADER.size + PAYLOAD_BYTES + _CHECKSUM.size) + 1
_ESCAPE, _NEWLINE = b"\x1b", b"\n"
_ESCAPED_ESCAPE, _ESCAPED_NEWLINE = b"\x1b[", b"\x1bn"


class Kind(IntEnum):
    """What a frame is for. The host begins an epoch with HELLO, and the Sandbox answers with one.

    The payload of each HELLO is the sender's size of the spool. That of CREDIT is the number of bytes that the other
    end may send in addition. On channel 0, END means that the Sandbox writes no more; its payload is the size of the
    whole spool.
    """

    HELLO = 0
    OPEN = 1
    DATA = 2
    CREDIT = 3
    END = 4
    """Its sender writes no more to the channel, and still reads."""
    CLOSE = 5
    """Its sender no longer reads or writes the channel."""
    PING = 6
    """The Sandbox answers one with one, so each end knows that the other is there."""
    SPOOL = 7
    """Bytes of the spool, after their offset in it."""


@dataclass(frozen=True, slots=True)
class StreamFrame:
    """One frame. `number` counts the frames of one direction in one epoch from 0; `channel` 0 is the link itself."""

    epoch: bytes
    number: int
    kind: Kind
    channel: int = 0
    payload: bytes = b""


def encode(frame: StreamFrame) -> bytes:
    """Return the line of a frame, newline included."""
    body = _HEADER.pack(frame.epoch, frame.number, frame.kind, frame.channel) + frame.payload
    body += _CHECKSUM.pack(zlib.crc32(body))
    return body.replace(_ESCAPE, _ESCAPED_ESCAPE).replace(_NEWLINE, _ESCAPED_NEWLINE) + _NEWLINE


def decode(line: bytes) -> StreamFrame | None:
    """Return the frame of a line without its newline; None if the line is not a whole frame."""
    body = line.replace(_ESCAPED_NEWLINE, _NEWLINE).replace(_ESCAPED_ESCAPE, _ESCAPE)
    if len(body) < _HEADER.size + _CHECKSUM.size:
        return None
    content, checksum = body[: -_CHECKSUM.size], body[-_CHECKSUM.size :]
    if _CHECKSUM.pack(zlib.crc32(content)) != checksum:
        return None
    epoch, number, kind, channel = _HEADER.unpack_from(content)
    try:
        return StreamFrame(epoch, number, Kind(kind), channel, content[_HEADER.size :])
    except ValueError:
        return None


class FrameSplitter:
    """Splits a stream into the lines of frames. One that is too long becomes an empty line, so memory is bounded."""

    def __init__(self) -> None:
        self._rest = b""
        self._is_skipping = False

    def feed(self, chunk: bytes) -> list[bytes]:
        """Take the next bytes; return the lines that they complete."""
        *lines, self._rest = (self._rest + chunk).split(_NEWLINE)
        if lines and self._is_skipping:
            lines[0], self._is_skipping = b"", False
        if len(self._rest) > _LINE_BYTES:
            self._rest, self._is_skipping = b"", True
        return lines
