"""HTTP/1.1 on one connection: what a server may send, and what it may not."""

import asyncio
from collections.abc import Iterable
from contextlib import nullcontext

import pytest

from orchestrator.runtime.mcp.http1 import BrokenResponseError, HttpRequest, exchange

REQUEST = HttpRequest("POST", "/mcp?a=b", {"host": "x", "accept": "*/*"}, b"{}")
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
GOOD: dict[str, tuple[bytes, int, bytes, bool]] = {
    "a length": (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", 200, b"hello", True),
    "the same length twice": (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\ncontent-length: 2\r\n\r\nok", 200, b"ok", True),
    "chunks": (CHUNKED + b"3\r\nhel\r\n2;a=b\r\nlo\r\n0\r\n\r\n", 200, b"hello", True),
    "chunks in upper case": (CHUNKED + b"A\r\n0123456789\r\n000\r\n\r\n", 200, b"0123456789", True),
    "trailers": (CHUNKED + b"1\r\nx\r\n0\r\na: b\r\nc: d\r\n\r\n", 200, b"x", True),
    "until the end": (b"HTTP/1.1 200 OK\r\n\r\nhello", 200, b"hello", False),
    "an older version": (b"HTTP/1.0 200 OK\r\ncontent-length: 1\r\n\r\nx", 200, b"x", False),
    "an older version that stays": (
        b"HTTP/1.0 200\r\nconnection: keep-alive\r\ncontent-length: 0\r\n\r\n",
        200,
        b"",
        True,
    ),
    "closing": (b"HTTP/1.1 200 OK\r\nconnection: Close\r\ncontent-length: 0\r\n\r\n", 200, b"", False),
    "information first": (
        b"HTTP/1.1 103 Early\r\na: b\r\n\r\nHTTP/1.1 100\r\n\r\nHTTP/1.1 202 \r\ncontent-length: 0\r\n\r\n",
        202,
        b"",
        True,
    ),
    "no body": (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b"", True),
    "bare line feeds": (b"HTTP/1.1 200 OK\ncontent-length: 1\n\nx", 200, b"x", True),
    "an empty line first": (b"\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", 200, b"", True),
    "no reason": (b"HTTP/1.1 404\r\ncontent-length: 0\r\n\r\n", 404, b"", True),
}
BAD: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "closed the connection without a response"),
    "half a head": (b"HTTP/1.1 200 OK\r\ncontent", "closed the connection without a response"),
    "another protocol": (b"SSH-2.0-OpenSSH\r\n\r\n", "begins with 'SSH-2.0-OpenSSH', which is not HTTP/1.1"),
    "a newer version": (b"HTTP/2 200\r\n\r\n", "which is not HTTP/1.1"),
    "no status": (b"HTTP/1.1 OK\r\n\r\n", "which is not HTTP/1.1"),
    "another protocol later": (b"HTTP/1.1 101 Switching\r\n\r\n", "switched to another protocol"),
    "a folded header": (b"HTTP/1.1 200 OK\r\na: b\r\n c\r\n\r\n", "which HTTP does not allow"),
    "a header without a name": (b"HTTP/1.1 200 OK\r\n: b\r\n\r\n", "which HTTP does not allow"),
    "a space in a name": (b"HTTP/1.1 200 OK\r\ncontent-length : 1\r\n\r\nx", "which HTTP does not allow"),
    "two lengths": (b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nxy", "has the length '1, 2'"),
    "a negative length": (b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n", "has the length '-1'"),
    "a length with a sign": (b"HTTP/1.1 200 OK\r\ncontent-length: +1\r\n\r\nx", r"has the length '\+1'"),
    "a coding": (b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n", "has the transfer encoding"),
    "a short body": (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhell", "in the middle of the response"),
    "a short chunk": (CHUNKED + b"5\r\nhell", "in the middle of the response"),
    "no last chunk": (CHUNKED + b"1\r\nx\r\n", "in the middle of the response"),
    "a chunk without a size": (CHUNKED + b"x\r\n", "a chunk without a size"),
    "a chunk with a negative size": (CHUNKED + b"-1\r\n", "a chunk without a size"),
    "a chunk with an endless size": (CHUNKED + b"f" * 20 + b"\r\n", "a chunk without a size"),
    "a chunk that is longer": (CHUNKED + b"1\r\nxy\r\n0\r\n\r\n", "a chunk of another size than it states"),
    "a long head": (b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 20_000 + b"\r\n", "the head of the response is too large"),
    "a long line": (b"HTTP/1.1 200 OK\r\na: " + b"b" * 100_000 + b"\r\n\r\n", "the head of the response is too large"),
    "empty lines": (b"\r\n" * 100_000, "the head of the response is too large"),
    "trailers without end": (CHUNKED + b"0\r\n" + b"a: b\r\n" * 10_000, "too many trailers"),
}


async def answered(pieces: Iterable[bytes]) -> tuple[int, bytes, bool, bytes]:
    """Send the request to a server that sends these pieces and closes; return its response, and the request."""
    got = bytearray()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        got.extend(await reader.readuntil(b"{}"))
        for piece in pieces:
            writer.write(piece)
            await asyncio.sleep(0)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with asyncio.timeout(20), server:
        streams = await asyncio.open_connection(*server.sockets[0].getsockname())
        try:
            response = await exchange(streams, REQUEST)
            body = b""
            while piece := await response.body.read():
                body += piece
            assert await response.body.read() == b""
            return response.status, body, response.is_reusable, bytes(got)
        finally:
            streams[1].transport.abort()


@pytest.mark.parametrize("name", GOOD)
async def test_a_response_is_read(name: str) -> None:
    """Whole, and byte by byte."""
    content, *expected = GOOD[name]
    for pieces in ([content], [content[index : index + 1] for index in range(len(content))]):
        status, body, is_reusable, _ = await answered(pieces)
        assert [status, body, is_reusable] == expected


@pytest.mark.parametrize("name", BAD)
async def test_a_response_that_breaks_the_rules_is_refused(name: str) -> None:
    """With a reason."""
    content, reason = BAD[name]
    with pytest.raises(BrokenResponseError, match=reason):
        await answered([content])


async def test_what_is_sent() -> None:
    """A request line, headers, and a length."""
    *_, got = await answered([GOOD["a length"][0]])
    assert got == b"POST /mcp?a=b HTTP/1.1\r\nhost: x\r\naccept: */*\r\ncontent-length: 2\r\n\r\n{}"


@pytest.mark.parametrize("value", ["a\r\nb: c", "a\nb", "a\0b", "\u20ac"])
def test_a_header_that_cannot_be_sent(value: str) -> None:
    """Nothing that a server chose, such as an event's id, adds a header or a request."""
    with pytest.raises(ValueError):  # noqa: PT011 - of any kind
        HttpRequest("GET", "/", {"last-event-id": value}).encode()


@pytest.mark.parametrize(
    ("line", "is_allowed"), [(b"a:" + b" " * 60_000 + b"\0", False), (b"a: x" + b" " * 60_000 + b"y", True)]
)
async def test_a_header_of_many_spaces_is_read_at_once(line: bytes, *, is_allowed: bool) -> None:
    """An expression that goes back and forth would take hours, with the whole Run standing still."""
    with nullcontext() if is_allowed else pytest.raises(BrokenResponseError, match="which HTTP does not allow"):
        await answered([b"HTTP/1.1 200 OK\r\n" + line + b"\r\ncontent-length: 0\r\n\r\n"])
