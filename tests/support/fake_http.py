"""An HTTP server on a socket that streams scripted server-sent events, and records the requests.

A GET, which lists models, gets a separate answer and leaves the script alone.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from itertools import zip_longest
from typing import Any, Literal

_PHRASES = {status.value: status.phrase for status in HTTPStatus}


@dataclass(frozen=True, slots=True)
class Events:
    """A stream of `data:` lines, and how it ends: as it should, with a cut connection, or never.

    `types` are what `event:` lines before them say, where the API has such lines.
    """

    data: Sequence[str]
    then: Literal["end", "cut", "stall"] = "end"
    types: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Plain:
    """An answer that is not a stream."""

    status: int
    body: str
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Received:
    """A request: its target, its headers in lower case, its parsed body; a GET has none."""

    target: str
    headers: Mapping[str, str]
    body: Mapping[str, Any]


@dataclass
class FakeHttp:
    """Answers in order, and the requests; `listing` answers each GET, and `probes` are those requests."""

    url: str
    answers: list[Events | Plain]
    received: list[Received] = field(default_factory=list)
    listing: Events | Plain = field(default_factory=lambda: Plain(200, '{"data": [], "models": []}'))
    probes: list[Received] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request and close."""
        try:
            method, request = await _receive(reader)
            (self.probes if method == "GET" else self.received).append(request)
            answer = self.listing if method == "GET" else self.answers.pop(0)
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
async def fake_http(*answers: Events | Plain, listing: Events | Plain | None = None) -> AsyncIterator[FakeHttp]:
    """Serve `answers`, one a request, on a free port of loopback; `listing` answers each GET."""
    fake = FakeHttp("", list(answers))
    fake.listing = listing or fake.listing
    async with await asyncio.start_server(fake.serve, "127.0.0.1", 0) as server:
        fake.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield fake


async def _receive(reader: asyncio.StreamReader) -> tuple[str, Received]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    method, target, _ = head[0].split(" ")
    return method, Received(target, headers, json.loads(body or b"{}"))


def _plain(answer: Plain) -> bytes:
    body = answer.body.encode()
    headers = {"content-type": "application/json", **answer.headers, "content-length": str(len(body))}
    lines = [f"HTTP/1.1 {answer.status} {_PHRASES.get(answer.status, 'Status')}", "connection: close"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


async def _stream(answer: Events, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n"
    )
    for data, kind in zip_longest(answer.data, answer.types):
        event = f"event: {kind}\ndata: {data}\n\n".encode() if kind else f"data: {data}\n\n".encode()
        # Two chunks an event, so that none may be taken for a whole one.
        for chunk in (event[:9], event[9:]):
            writer.write(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n")
            await writer.drain()
    if answer.then == "end":
        writer.write(b"0\r\n\r\n")
    elif answer.then == "stall":
        await reader.read()
