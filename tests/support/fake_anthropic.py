"""A server that speaks Anthropic's Messages API over a real socket: scripted answers, recorded requests."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

_STATUS = {200: "OK", 400: "Bad Request", 401: "Unauthorized", 429: "Too Many Requests", 500: "Internal Server Error"}


@dataclass(frozen=True, slots=True)
class Sse:
    """A stream of events, and how it ends: as it should, with a cut connection, or never."""

    events: Sequence[Mapping[str, Any]]
    then: Literal["end", "cut", "stall"] = "end"


@dataclass(frozen=True, slots=True)
class Plain:
    """An answer that is not a stream."""

    status: int
    body: str
    headers: Mapping[str, str] = field(default_factory=lambda: {"content-type": "application/json"})


@dataclass(frozen=True, slots=True)
class Received:
    """A request: its path, its headers in lower case, its parsed body."""

    path: str
    headers: Mapping[str, str]
    body: Mapping[str, Any]


@dataclass
class FakeAnthropic:
    """Answers in order, and what was asked."""

    url: str
    answers: list[Sse | Plain]
    received: list[Received] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request and close."""
        try:
            self.received.append(await _receive(reader))
            answer = self.answers.pop(0)
            if isinstance(answer, Plain):
                writer.write(_plain(answer))
            else:
                await _stream(answer, reader, writer)
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def fake_anthropic(*answers: Sse | Plain) -> AsyncIterator[FakeAnthropic]:
    """Serve `answers`, one a request, on a free port of loopback."""
    fake = FakeAnthropic("", list(answers))
    async with await asyncio.start_server(fake.serve, "127.0.0.1", 0) as server:
        fake.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield fake


def error(status: int, kind: str, message: str, **headers: str) -> Plain:
    """An error in the API's own words."""
    body = {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_1"}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Plain(status, json.dumps(body), {"content-type": "application/json", **named})


def start(**usage: int) -> dict[str, Any]:
    """The first event of a reply."""
    message: dict[str, Any] = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 10, "output_tokens": 1, **usage},
    }
    return {"type": "message_start", "message": message}


def block(index: int, opened: Mapping[str, Any], *deltas: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One content block, with all that comes between its start and its stop."""
    return [
        {"type": "content_block_start", "index": index, "content_block": opened},
        *({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": index},
    ]


def text(index: int, *pieces: str) -> list[dict[str, Any]]:
    """A block of text."""
    return block(index, {"type": "text", "text": ""}, *({"type": "text_delta", "text": piece} for piece in pieces))


def tool_use(index: int, call_id: str, name: str, *pieces: str) -> list[dict[str, Any]]:
    """A block that calls a tool; its input arrives in pieces of JSON."""
    opened = {"type": "tool_use", "id": call_id, "name": name, "input": {}}
    return block(index, opened, *({"type": "input_json_delta", "partial_json": piece} for piece in ("", *pieces)))


def stop(reason: str | None, **usage: Any) -> list[dict[str, Any]]:
    """The end of a reply."""
    return [
        {
            "type": "message_delta",
            "delta": {"stop_reason": reason, "stop_sequence": None},
            "usage": {"output_tokens": 7, **usage},
        },
        {"type": "message_stop"},
    ]


async def _receive(reader: asyncio.StreamReader) -> Received:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Received(head[0].split(" ")[1], headers, json.loads(body))


def _plain(answer: Plain) -> bytes:
    body = answer.body.encode()
    headers = {**answer.headers, "content-length": str(len(body)), "connection": "close"}
    lines = [f"HTTP/1.1 {answer.status} {_STATUS.get(answer.status, 'Status')}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


async def _stream(answer: Sse, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n"
    )
    for event in answer.events:
        data = f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()
        # Two chunks an event, so that none may be taken for a whole one.
        for chunk in (data[:9], data[9:]):
            writer.write(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n")
            await writer.drain()
    if answer.then == "end":
        writer.write(b"0\r\n\r\n")
    elif answer.then == "stall":
        await reader.read()
