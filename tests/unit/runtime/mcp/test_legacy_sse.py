"""MCP over HTTP+SSE, whatever the server sends."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from orchestrator.runtime.mcp.http_client import UnreachableError
from orchestrator.runtime.mcp.legacy_sse import legacy_sse
from orchestrator.runtime.mcp.protocol import CONNECTION_CLOSED, McpError, ViolationError
from orchestrator.runtime.mcp.results import CallResult, TextContent
from orchestrator.runtime.mcp.session import Session, open_session
from tests.support.raw_http import JSON, Asked, RawHttp, chunk, event, raw_http, response, result, stream

SECONDS = 20
INTRODUCED = {"protocolVersion": "2024-11-05", "capabilities": {}, "serverInfo": {"name": "n", "version": "1"}}
CONTENT = [{"type": "text", "text": "done"}]


class Server:
    """A server that replies to messages over its stream, and to `tools/call` with `calls`."""

    def __init__(self, calls: bytes | None = None) -> None:
        self.calls = calls
        self.stream: asyncio.StreamWriter | None = None

    async def __call__(self, asked: Asked, writer: asyncio.StreamWriter) -> None:
        """Answer a request."""
        if asked.method == "GET":
            self.stream = writer
            writer.write(stream() + chunk(": hello\n\n") + chunk(event("/messages?session=1", event="endpoint")))
            writer.write(chunk(event("[]") + event("") + event("x", event="other")))
            await writer.drain()
            await asyncio.Event().wait()
        assert self.stream is not None
        match asked.message.get("method"):
            case "initialize":
                self.stream.write(chunk(event(result(asked.id, **INTRODUCED))))
            case "tools/call" if self.calls is not None:
                self.stream.write(self.calls)
                if self.calls == b"":
                    self.stream.close()
            case "tools/call":
                writer.write(response(500))
                self.calls = chunk(event(result(3, content=CONTENT)))
                return
        writer.write(response(202, JSON, "Accepted"))


@asynccontextmanager
async def opened(server: Server) -> AsyncIterator[tuple[Session, RawHttp]]:
    """A session with a server."""
    async with (
        asyncio.timeout(SECONDS),
        raw_http(server) as far,
        legacy_sse(far.client("/sse")) as transport,
        open_session(transport, discover=False) as session,
    ):
        yield session, far


async def test_messages_go_to_the_address_that_the_stream_names() -> None:
    """And replies come over the stream, among other events."""
    async with opened(Server(chunk(event(result(2, content=CONTENT))))) as (session, far):
        assert session.version == "2024-11-05"
        assert await session.call_tool("t", {}) == CallResult((TextContent("done"),))
    assert [(asked.method, asked.target) for asked in far.asked] == [
        ("GET", "/sse"),
        *[("POST", "/messages?session=1")] * 3,
    ]


async def test_a_message_that_is_refused_fails_its_call_alone() -> None:
    """At once, with the reason; the next call works."""
    async with opened(Server()) as (session, _):
        with pytest.raises(McpError) as caught:
            await session.call_tool("t", {})
        assert caught.value.problem == "answered HTTP status 500 (Internal Server Error)"
        assert await session.call_tool("t", {}) == CallResult((TextContent("done"),))


@pytest.mark.parametrize(
    ("end", "problem"),
    [
        (chunk(""), None),
        (b"", "broke off its answer: the server closed the connection in the middle of the response"),
        (b"x\r\n", "broke off its answer: the response has a chunk without a size"),
    ],
)
async def test_the_end_of_the_stream_fails_all_calls(end: bytes, problem: str | None) -> None:
    """Those that wait, and later ones."""
    async with opened(Server(end)) as (session, _):
        for _ in range(2):
            with pytest.raises(McpError) as caught:
                await session.call_tool("t", {})
            assert (caught.value.code, caught.value.problem) == (CONNECTION_CLOSED, problem)


async def begun(answer: bytes) -> str:
    """Open the transport to a server that answers with these bytes; return the URL, and raise what is raised."""

    async def first(_asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(answer.replace(b"PORT", str(writer.get_extra_info("sockname")[1]).encode()))
        await writer.drain()
        writer.close()

    async with asyncio.timeout(SECONDS), raw_http(first) as far, legacy_sse(far.client("/sse")):
        return far.url


@pytest.mark.parametrize(
    ("address", "is_allowed"),
    [
        ("/messages", True),
        ("http://127.0.0.1:PORT/messages", True),
        ("HTTP://127.0.0.1:PORT", True),
        ("https://127.0.0.1:PORT/messages", False),
        ("http://127.0.0.1:1/messages", False),
        ("//evil.example/messages", False),
        ("http://127.0.0.1:PORT@evil.example/", False),
        ("http://[/", False),
        ("http://127.0.0.1:x/", False),
    ],
)
async def test_the_address_must_be_on_the_same_origin(address: str, *, is_allowed: bool) -> None:
    """Else a server could have messages sent elsewhere."""
    line = f"data: {address}\n\n"
    answer = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\nevent: endpoint\n" + line.encode()
    if is_allowed:
        assert await begun(answer)
        return
    with pytest.raises(ViolationError, match=r"^Endpoint origin does not match connection origin: "):
        await begun(answer)


@pytest.mark.parametrize(
    ("answer", "kind", "reason"),
    [
        (response(404), McpError, "Server returned an error response"),
        (response(302, {"location": "https://b.example/sse"}), McpError, "Redirect to https://b.example/sse not"),
        (
            response(200, JSON, json.dumps({})),
            ViolationError,
            "Expected response with content type 'text/event-stream'",
        ),
        (stream() + chunk(event("x")) + chunk(""), McpError, "Connection closed"),
        (b"x\r\n\r\n", UnreachableError, "could not be reached: the response begins with 'x'"),
    ],
)
async def test_an_endpoint_without_such_a_stream(answer: bytes, kind: type[Exception], reason: str) -> None:
    """The reason is given."""
    with pytest.raises(kind, match=f"^{reason}"):
        await begun(answer)
