"""The host's end against a Sandbox that does not keep to the rules: its memory stays bounded, and the epoch ends."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from itertools import count

import pytest

from orchestrator.wire.multiplexer import WINDOW_BYTES, Connection, Multiplexer, StreamBrokenError
from orchestrator.wire.stream import NUMBER, PAYLOAD_BYTES, Kind, StreamFrame, decode

EPOCH = b"abcd"


class Host:
    """The host's end, and the connections that it was given."""

    def __init__(self) -> None:
        self.accepted: list[Connection] = []
        self.end = Multiplexer(EPOCH, lambda: None, lambda *connection: self.accepted.append(connection))
        self._numbers = count()

    def take(self, kind: Kind, channel: int = 0, payload: bytes = b"") -> StreamFrame | None:
        """Take the next frame of a Sandbox."""
        return self.end.take(StreamFrame(EPOCH, next(self._numbers), kind, channel, payload))

    def sent(self) -> Iterator[StreamFrame]:
        """Yield all that can be sent now."""
        for line in self.end.lines():
            frame = decode(line[:-1])
            assert frame is not None
            yield frame


@pytest.fixture
async def host() -> AsyncIterator[Host]:
    """Give a host whose Sandbox has opened one connection."""
    made = Host()
    made.take(Kind.OPEN, 1)
    yield made
    made.end.lose(ConnectionResetError("the test is over"))


async def test_a_connection_that_sends_more_than_its_window(host: Host) -> None:
    """While the host reads nothing, it keeps less than two windows."""
    sent = 0

    def send_without_end() -> None:
        nonlocal sent
        while True:
            host.take(Kind.DATA, 1, bytes(PAYLOAD_BYTES))
            sent += PAYLOAD_BYTES

    with pytest.raises(StreamBrokenError, match="more than it may"):
        send_without_end()
    assert WINDOW_BYTES <= sent < 2 * WINDOW_BYTES


async def test_more_is_granted_once_it_was_read(host: Host) -> None:
    """As a control: with a reader, any amount passes, in windows."""
    reader, _ = host.accepted[0]
    left = 5 * WINDOW_BYTES
    while left:
        host.take(Kind.DATA, 1, bytes(PAYLOAD_BYTES))
        await reader.readexactly(PAYLOAD_BYTES)
        left -= PAYLOAD_BYTES
    granted = [NUMBER.unpack(frame.payload)[0] for frame in host.sent() if frame.kind is Kind.CREDIT]
    assert 4 * WINDOW_BYTES <= sum(granted) <= 5 * WINDOW_BYTES


async def test_frames_that_are_no_frames_of_the_protocol(host: Host) -> None:
    """A number that is none, a frame too early; what belongs to no connection is ignored."""
    host.take(Kind.DATA, 99, b"for a connection that does not exist")
    host.take(Kind.OPEN, 1)
    assert len(host.accepted) == 1
    with pytest.raises(StreamBrokenError, match="no number"):
        host.take(Kind.CREDIT, 1, b"123")
    with pytest.raises(StreamBrokenError, match="was lost"):
        host.end.take(StreamFrame(EPOCH, 77, Kind.PING))


async def test_a_sandbox_that_opens_without_end_and_reads_nothing(host: Host) -> None:
    """Each refused connection is one frame that waits; there is a limit to them."""

    def open_and_refuse() -> None:
        for channel in range(2, 20_000):
            host.take(Kind.OPEN, channel)
            host.accepted.pop()[1].transport.abort()

    with pytest.raises(StreamBrokenError, match="does not read"):
        open_and_refuse()


async def test_a_lost_epoch_ends_its_connections(host: Host) -> None:
    """Their users get the error at once."""
    reader, writer = host.accepted[0]
    host.end.lose(ConnectionResetError("gone"))
    with pytest.raises(ConnectionResetError, match="gone"):
        await reader.read(1)
    writer.write(b"ignored")
    assert list(host.sent()) == []


async def test_one_end_closes_and_the_other_hears_it(host: Host) -> None:
    """What was written before goes out first."""
    reader, writer = host.accepted[0]
    writer.write(b"the rest")
    writer.close()
    assert [(frame.kind, frame.payload) for frame in host.sent()] == [(Kind.DATA, b"the rest"), (Kind.CLOSE, b"")]
    await asyncio.sleep(0)
    host.take(Kind.DATA, 1, b"too late")
    assert await reader.read() == b""


async def test_bytes_after_an_end(host: Host) -> None:
    """No Sandbox of ours sends them, and asyncio's reader would fail in its own way."""
    host.take(Kind.END, 1)
    with pytest.raises(StreamBrokenError, match="more than it may"):
        host.take(Kind.DATA, 1, b"x")
