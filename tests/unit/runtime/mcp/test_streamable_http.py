"""MCP over HTTP, whatever the server answers."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from orchestrator.runtime.mcp.protocol import CONNECTION_CLOSED, INVALID_REQUEST, McpError
from orchestrator.runtime.mcp.results import CallResult, TextContent
from orchestrator.runtime.mcp.session import Session, open_session
from orchestrator.runtime.mcp.streamable_http import streamable_http
from tests.support.raw_http import EVENTS, JSON, Asked, RawHttp, chunk, event, raw_http, response, result, stream

SECONDS = 20
DONE = result(3, content=[{"type": "text", "text": "done"}])
INTRODUCED = {
    "protocolVersion": "2025-06-18",
    "capabilities": {},
    "serverInfo": {"name": "n", "version": "1"},
}
REFUSED_GET = response(405)


class Server:
    """A server with sessions; `calls` answers `tools/call`, `listens` the stream for messages without a request."""

    def __init__(self, calls: Any, listens: Any = None, deletes: Any = None) -> None:
        self.calls = calls
        self.listens = listens
        self.deletes = deletes

    async def __call__(self, asked: Asked, writer: asyncio.StreamWriter) -> None:
        """Answer a request."""
        match asked:
            case Asked(method="GET"):
                await self._run(self.listens or REFUSED_GET, asked, writer)
            case Asked(method="DELETE"):
                await self._run(self.deletes or response(200), asked, writer)
            case Asked(message={"method": "server/discover"}):
                writer.write(response(400, JSON, '{"jsonrpc":"2.0","id":null,"error":{"code":-32000,"message":"no"}}'))
            case Asked(message={"method": "initialize"}):
                writer.write(
                    response(200, {**JSON, "Mcp-Session-Id": "s1"}, json.dumps(result(asked.id, **INTRODUCED)))
                )
            case Asked(message={"method": "tools/call"}):
                await self._run(self.calls, asked, writer)
            case _:
                writer.write(response(202))

    @staticmethod
    async def _run(answer: Any, asked: Asked, writer: asyncio.StreamWriter) -> None:
        if isinstance(answer, bytes):
            writer.write(answer)
        else:
            await answer(asked, writer)


@asynccontextmanager
async def opened(server: Server) -> AsyncIterator[tuple[Session, RawHttp]]:
    """A session with a server."""
    async with (
        asyncio.timeout(SECONDS),
        raw_http(server) as far,
        streamable_http(far.client()) as transport,
        open_session(transport) as session,
    ):
        yield session, far


def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let resumptions follow at once."""
    monkeypatch.setattr("orchestrator.runtime.mcp.streamable_http._LEAST_RETRY_MS", 1)


TEXT = CallResult((TextContent("done"),))


@pytest.mark.parametrize(
    "answer",
    [
        response(200, {"Content-Type": "application/json; charset=utf-8"}, json.dumps(DONE)),
        response(200, {"content-type": "Text/Event-Stream;x=y"}, event(DONE)),
        stream() + chunk(": hello\n\n") + chunk(event(DONE)) + chunk(""),
        stream() + chunk(event({**DONE, "id": 99})) + chunk(""),
        stream() + chunk(event({"jsonrpc": "2.0", "method": "notifications/progress"}) + event(DONE)),
        stream() + chunk(event("not JSON", event="other") + event("", id=1) + event(DONE, event="message")),
        b"HTTP/1.1 100 Continue\r\n\r\n" + response(200, JSON, json.dumps(DONE)),
    ],
)
async def test_each_form_of_an_answer_is_read(answer: bytes) -> None:
    """JSON, and streams with other messages in them; a reply in a request's stream needs no right id."""
    async with opened(Server(answer)) as (session, _):
        assert await session.call_tool("t", {}) == TEXT


@pytest.mark.parametrize(
    ("answer", "text", "problem"),
    [
        (response(202), "server answered a request with 202 Accepted", None),
        (response(200, {"content-type": "text/html"}, "<p>"), "Unexpected content type: text/html", None),
        (response(204), "Unexpected content type: ", None),
        (response(200, JSON, "[" * 500), "Failed to parse JSON response: the message is not JSON", None),
        (response(200, JSON, json.dumps([DONE])), "Failed to parse JSON response: the message is not an object", None),
        (response(200, JSON, b'{"jsonrpc":"2.0","id":3,"result":{"\xff":1}}'), "Failed to parse JSON response", None),
        (response(200, EVENTS, event("not JSON")), "Failed to parse SSE message: the message is not JSON", None),
        (response(200, EVENTS, event("x")[:-1]), "SSE stream ended without a response", None),
        (stream() + b"5\r\nabc", "Connection closed", ""),
        (response(404), "Not Found", "answered HTTP status 404 (Not Found)"),
        (
            response(500, JSON, "{}"),
            "Server returned an error response",
            "answered HTTP status 500 (Internal Server Error)",
        ),
        (response(799), "Server returned an error response", "answered HTTP status 799"),
        (
            response(400, JSON, '{"jsonrpc":"2.0","id":null,"error":{"code":-5,"message":"bad"}}'),
            "bad",
            "answered HTTP status 400 (Bad Request)",
        ),
        (response(200, {**JSON, "content-encoding": "gzip"}, "x"), "", "answered compressed, which was not asked for"),
        (response(302, {"location": "/other"}), "Redirect to URL/other not followed; use that", None),
        (response(307, {"location": "https://u:p@b.example/x?t=1#f"}), "Redirect to https://b.example/x not", None),
        (response(308, {"location": "//[x"}), "Redirect to an invalid address not followed", None),
        (b"garbage\r\n\r\n", "", "could not be reached: the response begins with 'garbage', which is not HTTP/1.1"),
    ],
)
async def test_an_answer_that_is_none_fails_the_call_alone(answer: bytes, text: str, problem: str | None) -> None:
    """With a reason; the next call works."""
    answers = [answer, response(200, JSON, json.dumps({**DONE, "id": 4}))]

    async def calls(_asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(answers.pop(0))
        if answers and answer.endswith(b"abc"):
            await writer.drain()
            writer.close()

    async with opened(Server(calls)) as (session, far):
        with pytest.raises(McpError) as caught:
            await session.call_tool("t", {})
        if problem == "":
            problem = "broke off its answer: the server closed the connection in the middle of the response"
            text = "SSE stream ended without a response"
        assert str(caught.value).startswith(text.replace("URL", far.url))
        assert caught.value.problem == problem
        assert await session.call_tool("t", {}) == TEXT


async def test_an_answer_without_end_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither JSON nor an event may be longer than a message; the stream itself may last."""
    monkeypatch.setattr("orchestrator.runtime.mcp.streamable_http.MESSAGE_BYTES", 2**20)
    padding = "x" * 2**20
    answers = [
        response(200, JSON, json.dumps({**DONE, "padding": padding})),
        stream() + chunk("data: " + padding),
        stream() + b"".join(chunk(": " + "x" * 2**16 + "\n\n") for _ in range(20)) + chunk(event(DONE)),
    ]

    async def calls(_asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(answers.pop(0))

    async with opened(Server(calls)) as (session, _):
        with pytest.raises(McpError) as caught:
            await session.call_tool("t", {})
        assert caught.value.problem == "answered with more than 1 MiB"
        with pytest.raises(McpError, match=r"^SSE stream failed: Server-sent event exceeded the 1048576 byte limit"):
            await session.call_tool("t", {})
        assert await session.call_tool("t", {}) == TEXT


@pytest.mark.parametrize("ends", ["at once", "in the middle", "twice"])
async def test_a_stream_that_ends_too_early_is_resumed(ends: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the last event that had an id, and after the wait that the server asked for."""
    quick(monkeypatch)
    resumed: list[str] = []

    async def calls(_asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(stream() + chunk(event("", id="e\u00e9 1", retry=20)))
        writer.write(b"7\r\nabc" if ends == "in the middle" else chunk(""))
        await writer.drain()
        writer.close()

    async def listens(asked: Asked, writer: asyncio.StreamWriter) -> None:
        if "last-event-id" not in asked.headers:
            writer.write(REFUSED_GET)
            return
        resumed.append(asked.headers["last-event-id"])
        if ends == "twice" and len(resumed) == 1:
            writer.write(stream() + chunk(event("", id=2)) + chunk(""))
            return
        writer.write(stream() + chunk(event({**DONE, "id": 99})) + chunk(""))

    async with opened(Server(calls, listens)) as (session, far):
        assert await session.call_tool("t", {}) == TEXT
        (first, *rest) = [asked for asked in far.asked if "last-event-id" in asked.headers]
    # The server reads headers as latin-1, and the standard of event streams has UTF-8 for this one.
    assert resumed == ["e\u00e9 1".encode().decode("latin-1"), *(["2"] if ends == "twice" else [])]
    assert (first.headers["mcp-session-id"], first.headers["mcp-protocol-version"]) == ("s1", "2025-06-18")
    assert first.headers["accept"] == "application/json, text/event-stream"
    assert len(rest) == len(resumed) - 1


@pytest.mark.parametrize(
    "refusal", [response(404), response(200, JSON, "{}"), response(302, {"location": "https://b.example"}), b"x\n\n"]
)
async def test_a_stream_that_cannot_be_resumed_fails_the_call(refusal: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """After two attempts."""
    quick(monkeypatch)
    first = stream() + chunk(event("", id=7, retry=1)) + chunk("")
    async with opened(Server(first, refusal)) as (session, far):
        with pytest.raises(McpError, match=r"^SSE stream ended and could not be resumed$") as caught:
            await session.call_tool("t", {})
        assert caught.value.code == CONNECTION_CLOSED
        assert caught.value.problem is not None
        assert len([asked for asked in far.asked if "last-event-id" in asked.headers]) == 2


async def test_a_stream_that_is_resumed_for_ever_ends_with_its_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once the caller has given up, the server is notified, and nothing more is sent for the call."""
    quick(monkeypatch)
    again = stream() + chunk(event("", id=7, retry=1)) + chunk("")

    async def listens(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(again if "last-event-id" in asked.headers else REFUSED_GET)

    async with opened(Server(again, listens)) as (session, far):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await session.call_tool("t", {})
        await asyncio.sleep(0.02)
        assert [asked for asked in far.asked if asked.message.get("method") == "notifications/cancelled"]
        count = len([asked for asked in far.asked if "last-event-id" in asked.headers])
        assert count > 2
        await asyncio.sleep(0.1)
        assert len([asked for asked in far.asked if "last-event-id" in asked.headers]) == count


async def test_requests_of_the_server_are_answered_on_both_streams() -> None:
    """That of a call, and that for other messages; each answer is a separate POST."""
    ping = {"jsonrpc": "2.0", "id": "p", "method": "ping"}

    async def calls(_asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(stream() + chunk(event({**ping, "id": "q", "method": "roots/list"})))
        await writer.drain()
        await asyncio.sleep(0.1)
        writer.write(chunk(event(DONE)) + chunk(""))

    async def listens(_asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(stream() + chunk(event("not JSON") + event([ping]) + event(ping)))
        await writer.drain()
        await asyncio.Event().wait()

    async with opened(Server(calls, listens)) as (session, far):
        assert await session.call_tool("t", {}) == TEXT
        answers = {asked.id: asked for asked in far.asked if "method" not in asked.message and asked.message}
    assert answers["p"].message == {"jsonrpc": "2.0", "id": "p", "result": {}}
    assert answers["q"].message["error"] == {"code": INVALID_REQUEST, "message": "List roots not supported"}
    assert answers["q"].headers["mcp-protocol-version"] == "2025-06-18"


@pytest.mark.parametrize("retry", [0, -5, "soon"])
async def test_a_stream_that_ends_at_once_is_not_opened_in_a_tight_loop(retry: object) -> None:
    """Whatever wait the server asks for."""
    again = response(200, {**EVENTS, "connection": "close"}, f"retry: {retry}\n\n")
    async with opened(Server(response(200, JSON, json.dumps(DONE)), again)) as (_, far):
        await asyncio.sleep(0.3)
        assert len([asked for asked in far.asked if asked.method == "GET"]) <= 7


async def test_a_redirect_on_the_same_origin_is_followed() -> None:
    """With the same message and headers; a circle ends."""
    moved = response(307, {"location": "/mcp/"})

    async def answer(asked: Asked, writer: asyncio.StreamWriter) -> None:
        if asked.target == "/mcp" and asked.message.get("method") != "tools/call":
            writer.write(moved)
        elif asked.message.get("method") == "tools/call":
            writer.write(response(308, {"location": "/mcp?again"}))
        else:
            await Server(moved)(asked, writer)

    async with opened(answer) as (session, far):  # type: ignore[arg-type]  # a server is any answer
        with pytest.raises(McpError, match=r"^Redirect to http://127\.0\.0\.1:[0-9]+/mcp not followed"):
            await session.call_tool("t", {})
    assert len([asked for asked in far.asked if asked.message.get("method") == "tools/call"]) == 21
    assert {asked.headers["content-type"] for asked in far.asked} == {"application/json"}


async def test_a_session_that_ended_is_named() -> None:
    """A server that forgot the session answers 404."""
    async with opened(Server(response(404))) as (session, _):
        with pytest.raises(McpError) as caught:
            await session.call_tool("t", {})
        assert (caught.value.problem, caught.value.status) == ("answered HTTP status 404 (Not Found)", 404)


async def test_connections_are_used_again() -> None:
    """One after the other over one; a closed one is not used."""
    async with opened(Server(response(200, EVENTS, event(DONE)))) as (session, far):
        await asyncio.sleep(0.05)
        before = far.connections
        assert await session.call_tool("t", {}) == TEXT
        assert (before, far.connections) == (1, 1)
    closing = response(200, {**JSON, "connection": "close"}, json.dumps(DONE))
    async with opened(Server(closing)) as (session, far):
        assert [await session.call_tool("t", {}) for _ in range(2)] == [TEXT, TEXT]
        assert far.connections == 2


@pytest.mark.parametrize("number", [None, 99, "x"])
async def test_a_reply_in_json_answers_its_request_whatever_its_id(number: object) -> None:
    """A gateway that refuses may not know the id; the call would wait for its time."""
    refused = {"jsonrpc": "2.0", "id": number, "error": {"code": -32000, "message": "Quota exceeded"}}
    async with asyncio.timeout(5), opened(Server(response(200, JSON, json.dumps(refused)))) as (session, _):
        with pytest.raises(McpError, match="Quota exceeded") as caught:
            await session.call_tool("t", {})
    assert not caught.value.is_closed


async def test_what_follows_a_response_is_no_response() -> None:
    """Bytes that arrive between two requests close their connection; the next call has another one."""
    forged = response(200, JSON, json.dumps({**DONE, "id": 4, "result": {"content": [], "forged": True}}))
    answers = [
        response(200, JSON, json.dumps(DONE)) + forged,
        response(200, JSON, json.dumps({**DONE, "id": 4})),
    ]

    async def calls(_asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(answers.pop(0))

    async with opened(Server(calls)) as (session, far):
        assert [await session.call_tool("t", {}), await session.call_tool("t", {})] == [TEXT, TEXT]
        assert far.connections == 2


async def test_the_end_of_a_session_is_not_delayed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that takes long to delete the session is left alone."""
    monkeypatch.setattr("orchestrator.runtime.mcp.streamable_http._DELETE_SECONDS", 0.05)

    async def never(_asked: Asked, _writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    async with asyncio.timeout(SECONDS), opened(Server(never, deletes=never)) as (_, far):
        pass
    deleted = far.asked[-1]
    assert (deleted.method, deleted.headers["mcp-session-id"]) == ("DELETE", "s1")
