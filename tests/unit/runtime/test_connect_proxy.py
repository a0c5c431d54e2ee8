import asyncio
import base64
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from orchestrator.runtime import connect_proxy

CREDENTIAL = "c0ffee"
BASIC = "Proxy-Authorization: Basic " + base64.b64encode(f"x:{CREDENTIAL}".encode()).decode()
LARGE = b"0123456789abcdef" * 65536


@asynccontextmanager
async def proxied(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], object], request: str
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter, list[tuple[str, str, int]]]]:
    """A connection through a forwarder to a real server, and the arguments of the tunnel."""
    asked: list[tuple[str, str, int]] = []
    server = await asyncio.start_server(serve, "127.0.0.1", 0)  # type: ignore[arg-type]  # it may return anything

    async def open_tunnel(credential: str, host: str, port: int) -> connect_proxy.Streams | str:
        asked.append((credential, host, port))
        if host == "refused.test":
            return "the host refused.test is not declared; add it to allowedDomains"
        if host == "gone.test":
            raise ConnectionRefusedError
        return await asyncio.open_connection(*server.sockets[0].getsockname())

    async with asyncio.timeout(20), connect_proxy.listen(open_tunnel, CREDENTIAL) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request.encode() + b"\r\n\r\n")
        try:
            yield reader, writer, asked
        finally:
            writer.close()
            server.close()


async def echo_reversed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Respond only after the peer has closed its direction."""
    data = await reader.read()
    writer.write(data[::-1])
    await writer.drain()
    writer.close()


async def test_carries_both_ways_and_half_closes() -> None:
    """All bytes pass, and the end of one direction leaves the other open."""
    async with proxied(echo_reversed, f"CONNECT api.test:443 HTTP/1.1\r\n{BASIC}") as (reader, writer, asked):
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 200 Connection established\r\n\r\n"
        writer.write(LARGE)
        writer.write_eof()
        assert await reader.read(-1) == LARGE[::-1]
        assert asked == [(CREDENTIAL, "api.test", 443)]


async def test_reads_no_faster_than_it_is_read() -> None:
    """A sender has to wait while the receiver does not read."""
    received = asyncio.Event()

    async def never_read(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await received.wait()
        writer.close()

    async with proxied(never_read, f"CONNECT api.test:443 HTTP/1.1\r\n{BASIC}") as (reader, writer, _):
        await reader.readuntil(b"\r\n\r\n")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(_send_without_end(writer), 0.5)
        writer.transport.abort()
        received.set()


async def _send_without_end(writer: asyncio.StreamWriter) -> None:
    for _ in range(1000):
        writer.write(LARGE)
        await writer.drain()


REFUSED = {
    f"GET http://api.test/ HTTP/1.1\r\n{BASIC}": (
        "403 only https leaves a Sandbox: use an https:// address, on port 443"
    ),
    "CONNECT api.test:443 HTTP/1.1": "407 this proxy belongs to another skill; use the one that HTTPS_PROXY names",
    "CONNECT api.test:443 HTTP/1.1\r\nProxy-Authorization: Basic eDp5": (
        "407 this proxy belongs to another skill; use the one that HTTPS_PROXY names"
    ),
    f"CONNECT api.test HTTP/1.1\r\n{BASIC}": "400 CONNECT needs HOST:PORT",
    f"CONNECT api.test:99999 HTTP/1.1\r\n{BASIC}": "400 CONNECT needs HOST:PORT",
    f"CONNECT refused.test:443 HTTP/1.1\r\n{BASIC}": (
        "403 the host refused.test is not declared; add it to allowedDomains"
    ),
    f"CONNECT gone.test:443 HTTP/1.1\r\n{BASIC}": "502 gone.test:443 was not reached: the broker is gone",
    "CONNECT api.test:443 HTTP/1.1\r\nX: " + "x" * 9000: "431 a proxy request's head must not be over 8192 bytes",
}


@pytest.mark.parametrize("request_head", REFUSED, ids=range(len(REFUSED)))
async def test_refuses_with_a_sentence(request_head: str) -> None:
    """A refused request gets a status and a sentence, in the status line and in the body, and is closed."""
    sentence = REFUSED[request_head]
    async with proxied(echo_reversed, request_head) as (reader, _, _):
        answer = (await reader.read(-1)).decode()
    assert answer.startswith(f"HTTP/1.1 {sentence}\r\n")
    assert answer.endswith(f"\r\n\r\n{sentence[4:]}\n")


async def test_leaving_ends_connections() -> None:
    """A closed forwarder leaves no connection open."""
    async with proxied(echo_reversed, f"CONNECT api.test:443 HTTP/1.1\r\n{BASIC}") as (reader, _, _):
        await reader.readuntil(b"\r\n\r\n")
    async with asyncio.timeout(5):
        assert await reader.read(-1) == b""
