"""The link over a container's stdin and stdout: both real ends, joined by pipes in one process."""

import asyncio
import os
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from orchestrator.backends.docker import stream_link
from orchestrator.backends.docker.stream_link import MirrorFullError, StreamLink
from orchestrator.runtime import stream_transport
from orchestrator.runtime.stream_transport import StreamTransport
from orchestrator.wire.layout import SPOOL_NAME
from orchestrator.wire.multiplexer import WINDOW_BYTES, Channel, Multiplexer, StreamBrokenError
from orchestrator.wire.stream import FrameSplitter, Kind, StreamFrame, decode, encode

SECONDS = 20
MIB = 1024 * 1024
LINE = 64 * 1024


@dataclass
class Container:
    """A container's end and its pipes, which outlive every orchestrator as those of an engine do."""

    state: Path
    stdin: tuple[int, int] = field(default_factory=os.pipe)
    stdout: tuple[int, int] = field(default_factory=os.pipe)

    def __post_init__(self) -> None:
        self.transport = StreamTransport(self.stdin[0], self.stdout[1], self.state)
        self._spool = os.open(self.state / SPOOL_NAME, os.O_WRONLY | os.O_APPEND)

    def emit(self, line: bytes) -> None:
        """Write one event as the runtime does."""
        os.write(self._spool, line + b"\n")
        self.transport.grow(line)

    def close(self) -> None:
        """End the Sandbox."""
        self.transport.close()
        os.close(self._spool)
        for fd in (*self.stdin, *self.stdout):
            os.close(fd)


@asynccontextmanager
async def attached(container: Container) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Join the pipes as an engine's attach does; leaving is as if the orchestrator were killed."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    source = os.fdopen(os.dup(container.stdout[0]), "rb", 0)
    reading, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), source)
    sink = os.fdopen(os.dup(container.stdin[1]), "wb", 0)
    writing, protocol = await loop.connect_write_pipe(asyncio.streams.FlowControlMixin, sink)
    try:
        yield reader, asyncio.StreamWriter(writing, protocol, None, loop)
    finally:
        reading.close()
        writing.abort()


@pytest.fixture
async def container(tmp_path: Path) -> AsyncIterator[Container]:
    """Give a Sandbox without an orchestrator."""
    (tmp_path / "inside").mkdir()
    made = Container(tmp_path / "inside")
    try:
        async with asyncio.timeout(SECONDS):
            yield made
    finally:
        made.close()


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):  # the orchestrator ends while it answers
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.write_eof()
    writer.close()


def echoing(tasks: set[asyncio.Task[None]]) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], None]:
    """Return what answers each connection with its own bytes."""

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.ensure_future(_echo(reader, writer)))

    return accept


async def test_connections_carry_bytes_both_ways(container: Container, tmp_path: Path) -> None:
    """More than a window at once, on several connections, with an end of each direction."""
    tasks: set[asyncio.Task[None]] = set()
    link = StreamLink(echoing(tasks), tmp_path / "mirror", LINE)
    async with attached(container) as stream, asyncio.TaskGroup() as group:
        serving = group.create_task(link.serve(*stream))

        async def exchange(size: int) -> None:
            reader, writer = await container.transport.connect()
            sent = random.Random(size).randbytes(size)  # noqa: S311 - any bytes do
            writer.write(sent)
            writer.write_eof()
            assert await reader.read(-1) == sent
            writer.close()

        async with asyncio.TaskGroup() as several:
            for size in (1, 1000, 5 * MIB, 3 * WINDOW_BYTES):
                several.create_task(exchange(size))
        serving.cancel()
    await asyncio.gather(*tasks)


async def test_a_slow_reader_holds_back_its_own_connection_only(container: Container, tmp_path: Path) -> None:
    """One connection that its owner does not read keeps the writer waiting; another continues."""
    tasks: set[asyncio.Task[None]] = set()
    unread: list[asyncio.StreamReader] = []
    accept = echoing(tasks)

    def first_is_slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if unread:
            accept(reader, writer)
        unread.append(reader)

    link = StreamLink(first_is_slow, tmp_path / "mirror", LINE)
    async with attached(container) as stream, asyncio.TaskGroup() as group:
        serving = group.create_task(link.serve(*stream))
        _, stuck = await container.transport.connect()
        stuck.write(bytes(5 * MIB))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await stuck.drain()
        reader, writer = await container.transport.connect()
        writer.write(b"hello\n")
        assert await reader.readline() == b"hello\n"
        await unread[0].readexactly(5 * MIB)
        await stuck.drain()
        writer.close()
        serving.cancel()


async def test_nothing_is_lost_when_orchestrators_are_killed(container: Container, tmp_path: Path) -> None:
    """Each new one gets what the mirror lacks, whatever was torn; each line is in the mirror once, in order."""
    chance = random.Random(7)  # noqa: S311 - the same torn frames each time
    mirror = tmp_path / "mirror"
    lines = [f"{number} {'x' * chance.randrange(2000)}".encode() for number in range(2000)]

    async def emit() -> None:
        for line in lines:
            container.emit(line)
            if chance.random() < 0.1:
                await asyncio.sleep(0)

    async def orchestrators() -> None:
        for _ in range(30):
            link = StreamLink(lambda *_: None, mirror, LINE)
            async with attached(container) as (reader, writer):
                # A kill in the middle of a frame.
                writer.write(encode(StreamFrame(b"dead", 0, Kind.HELLO, 0, bytes(8)))[: chance.randrange(1, 20)])
                with suppress(TimeoutError):
                    async with asyncio.timeout(chance.random() / 50):
                        await link.serve(reader, writer)

    with suppress(ConnectionResetError):
        await container.transport.connect()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(emit())
        tasks.create_task(orchestrators())
    link = StreamLink(lambda *_: None, mirror, LINE)
    found = []
    async with attached(container) as stream, asyncio.TaskGroup() as tasks:
        serving = tasks.create_task(link.serve(*stream))
        async for line in link.lines():
            found.append(line)
            if len(found) == len(lines):
                break
        serving.cancel()
    assert found == lines


async def test_a_connection_breaks_with_its_orchestrator(container: Container, tmp_path: Path) -> None:
    """So that the runtime reattaches; without an orchestrator, connecting fails."""
    with pytest.raises(ConnectionResetError):
        await container.transport.connect()
    link = StreamLink(lambda *_: None, tmp_path / "mirror", LINE)
    async with attached(container) as stream:
        serving = asyncio.ensure_future(link.serve(*stream))
        reader, _ = await container.transport.connect()
        serving.cancel()
    async with attached(container) as stream:
        serving = asyncio.ensure_future(link.serve(*stream))
        with pytest.raises(ConnectionResetError):
            await reader.read(1)
        serving.cancel()


@pytest.mark.parametrize("payload", [b"", b"\n", b"\x1b", b"\x1bn\x1b[\n\x1b", bytes(range(256)) * 100])
def test_a_frame_is_one_line(payload: bytes) -> None:
    """Whatever its bytes are."""
    frame = StreamFrame(b"\n\x1b\x00\xff", 10, Kind.DATA, 27, payload)
    line = encode(frame)
    assert line.count(b"\n") == 1
    assert decode(line[:-1]) == frame
    assert decode(line[1:-1]) is None
    assert decode(line[:-2]) is None


def test_a_line_without_end_needs_no_memory() -> None:
    """It is dropped up to its newline, and the next line is whole."""
    splitter = FrameSplitter()
    for _ in range(1000):
        assert splitter.feed(bytes(4096)) == []
    assert splitter.feed(b"rest\nnext\n") == [b"", b"next"]


async def test_a_connection_waits_until_the_mirror_is_complete(container: Container, tmp_path: Path) -> None:
    """What a Sandbox did before decides what it may do, so the next orchestrator reads that first."""
    for number in range(1000):
        container.emit(f"{number} {'x' * 1000}".encode())
    sizes: list[int] = []
    mirror = tmp_path / "mirror"
    link = StreamLink(lambda *_: sizes.append(mirror.stat().st_size), mirror, LINE)
    async with attached(container) as stream, asyncio.TaskGroup() as tasks:
        serving = tasks.create_task(link.serve(*stream))
        await container.transport.connect()
        while not sizes:  # noqa: ASYNC110 - a callback appends to it
            await asyncio.sleep(0.01)
        serving.cancel()
    assert sizes == [(container.state / SPOOL_NAME).stat().st_size]


async def test_the_host_knows_when_it_has_everything(container: Container, tmp_path: Path) -> None:
    """A Sandbox that ends sends the rest and how much there is; then nothing is read from its volume."""
    link = StreamLink(lambda *_: None, tmp_path / "mirror", LINE)
    async with attached(container) as stream, asyncio.TaskGroup() as tasks:
        serving = tasks.create_task(link.serve(*stream))
        await container.transport.connect()
        for number in range(20):
            container.emit(str(number).encode())
        assert not link.is_whole
        container.transport.close()
        while not link.is_whole:  # noqa: ASYNC110 - it has no event
            await asyncio.sleep(0.01)
        serving.cancel()
    link.end()
    assert [line async for line in link.lines()] == [str(number).encode() for number in range(20)]
    link.close()


async def test_a_line_that_is_too_long_is_dropped(tmp_path: Path) -> None:
    """Memory stays bounded; the lines around it are there."""
    link = StreamLink(lambda *_: None, tmp_path / "mirror", 10)
    link.add(0, b"one\n" + bytes(5000) + b"\ntwo\n")
    link.end()
    assert [line async for line in link.lines()] == [b"one", b"two"]
    link.close()


async def test_the_rest_is_added_where_the_mirror_ends(tmp_path: Path) -> None:
    """The volume is read from its beginning; what the mirror has is skipped, and a hole is refused."""
    link = StreamLink(lambda *_: None, tmp_path / "mirror", LINE)
    link.add(0, b"one\ntw")
    link.add(0, b"one\ntwo\nth")
    link.add(4, b"two\nthree\n")
    with pytest.raises(StreamBrokenError, match="3 bytes of the spool are missing"):
        link.add(17, b"more")
    assert (tmp_path / "mirror").read_bytes() == b"one\ntwo\nthree\n"
    link.close()


async def test_silence_means_that_the_broker_is_gone(
    container: Container, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stdin has no end when an orchestrator dies, so frames must come; those of a living one keep the connection."""
    monkeypatch.setattr(stream_transport, "SILENCE_SECONDS", 0.5)
    monkeypatch.setattr(stream_link, "PING_SECONDS", 0.05)
    link = StreamLink(lambda *_: None, tmp_path / "mirror", LINE)
    async with attached(container) as stream:
        serving = asyncio.ensure_future(link.serve(*stream))
        reader, _ = await container.transport.connect()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.2):
                await reader.read(1)
        serving.cancel()
        with pytest.raises(ConnectionResetError, match=r"silent for 0\.5 s"):
            await reader.read(1)


async def test_the_orchestrator_that_attached_last_has_the_sandbox(container: Container, tmp_path: Path) -> None:
    """Both get the frames of the newer epoch; the older one notices that they are not its own, and ends."""
    link = StreamLink(lambda *_: None, tmp_path / "mirror", LINE)
    async with attached(container) as (reader, writer):
        serving = asyncio.ensure_future(link.serve(reader, writer))
        connection, _ = await container.transport.connect()
        writer.write(encode(StreamFrame(b"next", 0, Kind.HELLO, 0, bytes(8))))
        with pytest.raises(StreamBrokenError, match="another orchestrator attached"):
            await serving
        with pytest.raises(ConnectionResetError, match="another orchestrator attached"):
            await connection.read(1)
    link.close()


async def test_a_silent_sandbox_is_attached_again(
    container: Container, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The Sandbox that gave up the stream answers no longer: the host begins another, and the link works again."""
    monkeypatch.setattr(stream_transport, "SILENCE_SECONDS", 0.2)
    monkeypatch.setattr(stream_link, "SILENCE_SECONDS", 0.5)
    monkeypatch.setattr(stream_link, "PING_SECONDS", 0.05)
    tasks: set[asyncio.Task[None]] = set()
    link = StreamLink(echoing(tasks), tmp_path / "mirror", LINE)
    async with attached(container) as stream:
        serving = asyncio.ensure_future(link.serve(*stream))
        reader, _ = await container.transport.connect()
        time.sleep(0.3)  # noqa: ASYNC251 - the whole orchestrator is stopped, and so is this end of its pipe
        with pytest.raises(ConnectionResetError, match="silent"):
            await reader.read(1)
        with pytest.raises(TimeoutError):
            await serving
    async with attached(container) as stream:
        serving = asyncio.ensure_future(link.serve(*stream))
        reader, writer = await container.transport.connect()
        writer.write(b"again\n")
        assert await reader.readline() == b"again\n"
        writer.close()
        serving.cancel()
    await asyncio.gather(*tasks)
    link.close()


async def test_what_came_before_a_clean_end_can_be_read(container: Container, tmp_path: Path) -> None:
    """A checkpoint that a Sandbox sent just before its death counts, as with a socket."""
    came: list[asyncio.StreamReader] = []
    link = StreamLink(lambda reader, _: came.append(reader), tmp_path / "mirror", LINE)
    async with attached(container) as (reader, writer):
        relayed = asyncio.StreamReader()
        serving = asyncio.ensure_future(link.serve(relayed, writer))

        async def relay() -> None:
            while data := await reader.read(65536):
                relayed.feed_data(data)

        relaying = asyncio.ensure_future(relay())
        _, out = await container.transport.connect()
        out.write(b"the last frame")
        while not came:  # noqa: ASYNC110 - a callback appends to it
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        relayed.feed_eof()
        await serving
        relaying.cancel()
    assert await came[0].read() == b"the last frame"
    link.close()


async def test_connections_of_a_sandbox_that_never_sends_its_spool_are_limited(tmp_path: Path) -> None:
    """It states a large spool, so none is admitted; they must not fill the memory."""
    link = StreamLink(lambda *_: None, tmp_path / "mirror", LINE)
    channels = [Channel(Multiplexer(b"none", lambda: None), number) for number in range(400)]
    for channel in channels:
        link._admit(*channel.connection)  # noqa: SLF001 - what a stream with many frames does
    assert sum(channel.is_closing() for channel in channels) == 400 - 256
    for channel in channels:
        channel.lose(None)
    link.close()


async def test_a_full_disk_is_no_broken_stream(tmp_path: Path) -> None:
    """To attach again would not help."""
    link = StreamLink(lambda *_: None, tmp_path / "mirror", LINE)
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, link._mirror)  # noqa: SLF001 - the one way to a full disk without filling one
    os.close(full)
    with pytest.raises(MirrorFullError):
        link.add(0, b"line\n")
    link.close()
