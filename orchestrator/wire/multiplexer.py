"""Many connections over one stream of frames. Both ends of the link use it; only the Sandbox opens connections."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator

from orchestrator.wire.stream import NUMBER, PAYLOAD_BYTES, Kind, StreamFrame, decode, encode

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]

WINDOW_BYTES = 256 * 1024
"""How many bytes one end of a channel may send before the other end has read any."""

_GRANT_BYTES = WINDOW_BYTES // 4
_LIMIT_BYTES = 64 * 1024
_HIGH_BYTES, _LOW_BYTES = 256 * 1024, 64 * 1024
_CHANNELS, _WAITING_FRAMES = 1024, 10_000
"""Connections that may be open or wait to be closed, and frames apart from data that may wait to be read."""


class StreamBrokenError(ConnectionError):
    """A frame was lost, or is not allowed, so this epoch of the link is over."""


def number_of(payload: bytes) -> int:
    """Return the number at the beginning of a payload.

    Raises:
        StreamBrokenError: the payload is too short.
    """
    if len(payload) < NUMBER.size:
        message = "a frame of the link has no number in it"
        raise StreamBrokenError(message)
    return int(NUMBER.unpack_from(payload)[0])


class Channel(asyncio.Transport):
    """One connection, as a transport of asyncio."""

    def __init__(self, multiplexer: "Multiplexer", number: int) -> None:
        super().__init__()
        loop = asyncio.get_running_loop()
        self.number = number
        self._multiplexer = multiplexer
        self._loop = loop
        self._credit = WINDOW_BYTES
        self._allowed = WINDOW_BYTES
        self._pending = bytearray()
        self._is_paused = self._is_full = False
        self._wants_end = self._sent_end = self._is_closing = self._is_lost = self._got_end = False
        reader = asyncio.StreamReader(_LIMIT_BYTES, loop)
        self._protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
        self._protocol.connection_made(self)
        self.connection: Connection = reader, asyncio.StreamWriter(self, self._protocol, reader, loop)

    # What asyncio calls.

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send bytes, in order."""
        if self._is_closing or self._wants_end:
            return
        self._pending += data
        if len(self._pending) > _HIGH_BYTES and not self._is_full:
            self._is_full = True
            self._protocol.pause_writing()
        self._multiplexer.wake()

    def can_write_eof(self) -> bool:
        """Return that one direction can end alone."""
        return True

    def write_eof(self) -> None:
        """End this direction once all bytes are sent."""
        self._wants_end = True
        self._multiplexer.wake()

    def close(self) -> None:
        """Close both directions once all bytes are sent."""
        self._is_closing = True
        self._multiplexer.wake()

    def abort(self) -> None:
        """Close both directions now."""
        self._pending.clear()
        self.close()
        self.lose(None)

    def is_closing(self) -> bool:
        """Whether it is closing or closed."""
        return self._is_closing

    def get_write_buffer_size(self) -> int:
        """How many bytes wait to be sent."""
        return len(self._pending)

    def pause_reading(self) -> None:
        """Grant the other end no more bytes."""
        self._is_paused = True

    def resume_reading(self) -> None:
        """Grant what was held back."""
        self._is_paused = False
        self._grant()

    # What the multiplexer calls.

    def next_frame(self) -> tuple[Kind, bytes] | None:
        """Return what to send next; None if nothing can be sent now."""
        if self._pending and self._credit:
            size = min(len(self._pending), self._credit, PAYLOAD_BYTES)
            data = bytes(self._pending[:size])
            del self._pending[:size]
            self._credit -= size
            if self._is_full and len(self._pending) <= _LOW_BYTES:
                self._is_full = False
                self._protocol.resume_writing()
            return Kind.DATA, data
        if self._pending:
            return None
        if self._is_closing:
            self._multiplexer.forget(self)
            self.lose(None)
            return Kind.CLOSE, b""
        if self._wants_end and not self._sent_end:
            self._sent_end = True
            return Kind.END, b""
        return None

    def take(self, frame: StreamFrame) -> None:
        """Take a frame of the other end.

        Raises:
            StreamBrokenError: it is not allowed.
        """
        match frame.kind:
            case Kind.DATA if not self._is_closing:
                self._allowed -= len(frame.payload)
                if self._allowed < 0 or self._got_end:
                    message = "a connection of the link sent more than it may"
                    raise StreamBrokenError(message)
                self._protocol.data_received(frame.payload)
                self._grant()
            case Kind.CREDIT:
                self._credit += number_of(frame.payload)
                self._multiplexer.wake()
            case Kind.END if not self._is_closing:
                self._got_end = True
                self._protocol.eof_received()
            case Kind.CLOSE:
                self._multiplexer.forget(self)
                self._is_closing = True
                self._pending.clear()
                self.lose(None)

    def lose(self, error: Exception | None) -> None:
        """End the connection for its user."""
        if not self._is_lost:
            self._is_lost = self._is_closing = True
            self._loop.call_soon(self._protocol.connection_lost, error)

    def _grant(self) -> None:
        free = WINDOW_BYTES - self._allowed
        if not self._is_paused and free >= _GRANT_BYTES:
            self._multiplexer.control(Kind.CREDIT, self.number, NUMBER.pack(free))
            self._allowed = WINDOW_BYTES


class Multiplexer:
    """One epoch of a link.

    `wake` is called when there is something to send; `lines` yields it. `accept` is called with each connection that
    the other end opens. `more` returns the next payload of the spool, b"" if nothing is new.
    """

    def __init__(
        self,
        epoch: bytes,
        wake: Callable[[], None],
        accept: Callable[[asyncio.StreamReader, asyncio.StreamWriter], None] | None = None,
        more: Callable[[], bytes] = bytes,
    ) -> None:
        self.epoch = epoch
        self.wake = wake
        self._accept = accept
        self._more = more
        self._channels: dict[int, Channel] = {}
        self._control: deque[tuple[Kind, int, bytes]] = deque()
        self._sent = 0
        self._taken = 0
        self._opened = 0
        self._turn = 0

    def open(self) -> Connection:
        """Open a connection to the other end."""
        self._opened += 1
        channel = Channel(self, self._opened)
        self._channels[channel.number] = channel
        self.control(Kind.OPEN, channel.number)
        return channel.connection

    def control(self, kind: Kind, channel: int = 0, payload: bytes = b"") -> None:
        """Send a frame before all data."""
        self._control.append((kind, channel, payload))
        self.wake()

    def forget(self, channel: Channel) -> None:
        """Drop a channel; later frames of it are ignored."""
        self._channels.pop(channel.number, None)

    def lose(self, error: Exception | None) -> None:
        """End all connections: the epoch is over. Without an error, what has arrived can still be read."""
        channels, self._channels = self._channels, {}
        for channel in channels.values():
            channel.lose(error)

    def lines(self) -> Iterator[bytes]:
        """Yield the lines to send until nothing more can be sent now; channels and spool take turns."""
        while True:
            found = self._next()
            if found is None:
                return
            kind, channel, payload = found
            line = encode(StreamFrame(self.epoch, self._sent, kind, channel, payload))
            self._sent += 1
            yield line

    def take(self, frame: StreamFrame) -> StreamFrame | None:
        """Take the next frame of this epoch; return it if it is for the link itself.

        Raises:
            StreamBrokenError: a frame before it is missing, it is not allowed, or the other end does not read.
        """
        if len(self._control) > _WAITING_FRAMES or len(self._channels) > _CHANNELS:
            message = "the other end of the link does not read"
            raise StreamBrokenError(message)
        if frame.number != self._taken:
            message = f"frame {self._taken} of the link was lost"
            raise StreamBrokenError(message)
        self._taken += 1
        if frame.channel == 0:
            return frame
        if frame.kind is Kind.OPEN and self._accept is not None and frame.channel not in self._channels:
            channel = self._channels[frame.channel] = Channel(self, frame.channel)
            self._accept(*channel.connection)
        elif (known := self._channels.get(frame.channel)) is not None:
            known.take(frame)
        return None

    def _next(self) -> tuple[Kind, int, bytes] | None:
        if self._control:
            return self._control.popleft()
        waiting = list(self._channels.values())
        # The spool is the last in the round, and no channel goes twice before it.
        for turn in range(len(waiting) + 1):
            place = (self._turn + turn) % (len(waiting) + 1)
            if place == len(waiting):
                if payload := self._more():
                    self._turn = 0
                    return Kind.SPOOL, 0, payload
            elif (found := waiting[place].next_frame()) is not None:
                self._turn = place + 1
                return found[0], waiting[place].number, found[1]
        return None


def read_frames(lines: list[bytes], epoch: bytes) -> Iterator[StreamFrame]:
    """Yield the frames of this epoch among lines, and each HELLO; drop what is damaged or of another epoch."""
    for line in lines:
        frame = decode(line)
        if frame is not None and (frame.epoch == epoch or frame.kind is Kind.HELLO):
            yield frame
