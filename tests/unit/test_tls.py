"""TLS over sockets of this machine: ours at both ends, and against asyncio's own at either."""

import asyncio
import os
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from orchestrator import tls
from orchestrator.http.dial import dial
from tests.support.certificates import issue

HERE, NAME, LIMIT, SECONDS = "127.0.0.1", "broker.example", 64 * 1024, 10
LARGE = bytes(range(256)) * 16 * 1024
"""More than any buffer on the way takes."""

Accept = Callable[[asyncio.StreamReader, asyncio.StreamWriter], None]
Serve = Callable[[Accept, socket.socket, ssl.SSLContext], Awaitable[asyncio.Server]]
Dial = Callable[[int, ssl.SSLContext], Awaitable[tls.Connection]]


async def our_server(accept: Accept, listener: socket.socket, context: ssl.SSLContext) -> asyncio.Server:
    """Listen with ours."""
    return await tls.Tls(context, LIMIT).serve(accept, listener)


async def their_server(accept: Accept, listener: socket.socket, context: ssl.SSLContext) -> asyncio.Server:
    """Listen with asyncio's own."""
    return await asyncio.start_server(accept, sock=listener, ssl=context, limit=LIMIT)


async def our_client(port: int, context: ssl.SSLContext) -> tls.Connection:
    """Connect with ours."""
    return await tls.Tls(context, LIMIT).connect(await dial(HERE, port), NAME)


async def their_client(port: int, context: ssl.SSLContext) -> tls.Connection:
    """Connect with asyncio's own."""
    return await asyncio.open_connection(HERE, port, ssl=context, server_hostname=NAME, limit=LIMIT)


@dataclass
class Ends:
    """A server, its accepted connections, and how a client knows it; `open` are all connections at this end."""

    port: int
    knows: ssl.SSLContext
    accepted: "asyncio.Queue[tls.Connection]" = field(default_factory=asyncio.Queue)
    open: list[asyncio.StreamWriter] = field(default_factory=list)

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take a connection."""
        self.open.append(writer)
        self.accepted.put_nowait((reader, writer))

    async def dial(self, dial: Dial = our_client) -> tls.Connection:
        """Connect to the server."""
        reader, writer = await dial(self.port, self.knows)
        self.open.append(writer)
        return reader, writer


@pytest.fixture
def contexts(tmp_path: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's certificate, and a client that trusts it."""
    authority = issue(tmp_path, NAME)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    return server, ssl.create_default_context(cafile=str(authority))


@asynccontextmanager
async def serving(contexts: tuple[ssl.SSLContext, ssl.SSLContext], serve: Serve = our_server) -> AsyncIterator[Ends]:
    """Have a server."""
    listener = socket.create_server((HERE, 0))
    ends = Ends(listener.getsockname()[1], contexts[1])
    async with asyncio.timeout(SECONDS), AsyncExitStack() as stack:
        server = await serve(ends.accept, listener, contexts[0])
        stack.callback(server.close)
        try:
            yield ends
        finally:
            for writer in ends.open:
                writer.transport.abort()
            for writer in ends.open:
                with suppress(OSError):
                    await writer.wait_closed()


Contexts = tuple[ssl.SSLContext, ssl.SSLContext]


@pytest.mark.parametrize(
    ("serve", "dial"),
    [
        pytest.param(our_server, our_client, id="ours"),
        pytest.param(their_server, our_client, id="our client"),
        pytest.param(our_server, their_client, id="our server"),
    ],
)
async def test_both_directions_carry_what_was_written(contexts: Contexts, serve: Serve, dial: Dial) -> None:
    """Four megabytes each way at once, slowly read; then each side sees the end of the other."""
    async with serving(contexts, serve) as ends:
        reader, writer = await ends.dial(dial)
        far_reader, far_writer = await ends.accepted.get()
        async with asyncio.TaskGroup() as group:
            for one in (writer, far_writer):
                one.write(LARGE)
                group.create_task(one.drain())
            here = group.create_task(reader.readexactly(len(LARGE)))
            there = group.create_task(far_reader.readexactly(len(LARGE)))
        assert (here.result(), there.result()) == (LARGE, LARGE)
        writer.close()
        assert await far_reader.read() == b""
        far_writer.close()
        await writer.wait_closed()


async def test_what_passes_at_once_does_not_mix(contexts: Contexts) -> None:
    """Connections of one client and of one server share memory, and no data."""
    client = tls.Tls(contexts[1], LIMIT)
    async with serving(contexts) as ends, asyncio.TaskGroup() as group:

        async def pass_through(number: int) -> None:
            reader, writer = await client.connect(await dial(HERE, ends.port), NAME)
            ends.open.append(writer)
            told = bytes([number]) * len(LARGE)
            writer.write(told[:1])
            far_reader, far_writer = await ends.accepted.get()
            other = await far_reader.readexactly(1)
            far_writer.write(other * len(LARGE))
            assert await reader.readexactly(len(LARGE)) == told

        for number in range(8):
            group.create_task(pass_through(number))


async def test_what_was_written_before_the_end_arrives(contexts: Contexts) -> None:
    """The other end still writes data that is not read: a socket closed at once would send a reset instead."""
    async with serving(contexts) as ends:
        _, writer = await ends.dial()
        far_reader, far_writer = await ends.accepted.get()
        far_writer.write(LARGE * 4)
        await stuck(far_writer)
        writer.write(b"the last word")
        writer.close()
        assert await far_reader.read() == b"the last word"


async def stuck(writer: asyncio.StreamWriter) -> None:
    """Wait until all buffers on the way are full."""
    left = None
    while left != (left := writer.transport.get_write_buffer_size()):  # noqa: ASYNC110 - no event reports it
        await asyncio.sleep(0.1)
    assert left


async def test_a_reader_that_is_slow_makes_the_writer_wait(contexts: Contexts) -> None:
    """Nothing piles up in between."""
    async with serving(contexts) as ends:
        reader, _ = await ends.dial()
        _, far_writer = await ends.accepted.get()
        far_writer.write(LARGE * 4)
        draining = asyncio.ensure_future(far_writer.drain())
        await stuck(far_writer)
        assert not draining.done()
        assert await reader.readexactly(4 * len(LARGE)) == LARGE * 4
        await draining


async def test_a_stranger_s_certificate_is_refused(contexts: Contexts) -> None:
    """The error is OpenSSL's own, and the server accepts no connection."""
    async with serving(contexts) as ends:
        with pytest.raises(ssl.SSLCertVerificationError, match="unable to get local issuer certificate"):
            await our_client(ends.port, ssl.create_default_context())
        await ends.dial()
        _, writer = await ends.accepted.get()
        assert writer.get_extra_info("peername")[0] == HERE
        assert isinstance(writer.get_extra_info("ssl_object"), ssl.SSLObject)
        assert ends.accepted.empty()


async def test_a_peer_that_hangs_up_during_the_handshake_is_no_connection() -> None:
    """The error is raised at once."""
    with socket.create_server((HERE, 0)) as listener:
        server = await asyncio.start_server(lambda _, writer: writer.close(), sock=listener)
        async with asyncio.timeout(SECONDS):
            with pytest.raises(ConnectionResetError):
                await our_client(listener.getsockname()[1], ssl.create_default_context())
        server.close()


async def test_a_silent_peer_is_given_up(contexts: Contexts, monkeypatch: pytest.MonkeyPatch) -> None:
    """This holds at either end, so that no silent connection is held for ever."""
    monkeypatch.setattr(tls, "HANDSHAKE_SECONDS", 0.1)
    async with serving(contexts) as ends:
        reader, writer = await asyncio.open_connection(HERE, ends.port)
        assert await reader.read() == b""
        writer.close()
    with socket.create_server((HERE, 0)) as listener, pytest.raises(TimeoutError, match="handshake took longer"):
        await our_client(listener.getsockname()[1], ssl.create_default_context())


async def test_nonsense_is_an_error(contexts: Contexts) -> None:
    """What no TLS peer sends ends the connection, and the reader gets the reason."""
    async with serving(contexts) as ends:
        reader, _ = await ends.dial()
        _, far_writer = await ends.accepted.get()
        os.write(far_writer.get_extra_info("socket").fileno(), b"\x17\x03\x03\x00\x02no, this is no record of theirs")
        with pytest.raises(ssl.SSLError):
            await reader.read()


async def test_an_idle_connection_takes_little_memory(contexts: Contexts) -> None:
    """An orchestrator of thousands of Sandboxes has two for each: both ends together take less than 128 KiB here."""
    async with serving(contexts) as ends:
        for _ in range(20):
            await ends.dial()
        before = resident()
        for _ in range(100):
            await ends.dial()
        each = (resident() - before) / 100
    assert each < 128 * 1024, f"{each} bytes"


def resident() -> int:
    """Bytes of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
