"""An HTTP server that answers with the bytes that a test gives it, and records the requests."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from orchestrator.runtime.mcp.http_client import HttpClient

JSON = {"content-type": "application/json"}
EVENTS = {"content-type": "text/event-stream"}


@dataclass(frozen=True, slots=True)
class Asked:
    """A request; `message` is its JSON body."""

    method: str
    target: str
    headers: Mapping[str, str]
    message: dict[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> Any:
        """The id of its message."""
        return self.message.get("id")


Answer = Callable[[Asked, asyncio.StreamWriter], Awaitable[None]]
"""Writes the response to a request; the connection stays open until it returns, and longer, unless it closes it."""


@dataclass
class RawHttp:
    """A server's URL, what it was asked, and how many connections it had."""

    url: str
    answer: Answer
    asked: list[Asked] = field(default_factory=list)
    connections: int = 0

    def client(self, path: str = "/mcp") -> HttpClient:
        """A client of this server, without a proxy and TLS."""
        host, _, port = self.url.removeprefix("http://").partition(":")
        return HttpClient(self.url + path, lambda: asyncio.open_connection(host, int(port)))

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection."""
        self.connections += 1
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while not writer.is_closing():
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                method, target, _ = head[0].split(" ")
                headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:-2])}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                asked = Asked(method, target, headers, json.loads(body) if body else {})
                self.asked.append(asked)
                await self.answer(asked, writer)
                await writer.drain()
        writer.close()


@asynccontextmanager
async def raw_http(answer: Answer) -> AsyncIterator[RawHttp]:
    """Serve on 127.0.0.1."""
    made = RawHttp("", answer)
    tasks: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(made.serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield made
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


def response(status: int, headers: Mapping[str, str] | None = None, body: str | bytes = b"") -> bytes:
    """A response of known length."""
    content = body.encode() if isinstance(body, str) else body
    fields = {"content-length": str(len(content)), **(headers or {})}
    lines = (f"HTTP/1.1 {status} Said", *(f"{name}: {value}" for name, value in fields.items()), "", "")
    return "\r\n".join(lines).encode() + content


def stream(headers: Mapping[str, str] | None = None) -> bytes:
    """The head of a response that is a stream of chunks."""
    fields = {**EVENTS, "transfer-encoding": "chunked", **(headers or {})}
    return "\r\n".join(("HTTP/1.1 200 OK", *(f"{name}: {value}" for name, value in fields.items()), "", "")).encode()


def chunk(text: str) -> bytes:
    """One chunk of a stream; an empty one ends it."""
    return f"{len(text.encode()):x}\r\n{text}\r\n".encode()


def event(message: object, **fields: str | int) -> str:
    """An event with a message, which may be any text."""
    lines = [f"{name}: {value}" for name, value in fields.items()]
    return "\n".join((*lines, f"data: {message if isinstance(message, str) else json.dumps(message)}", "", ""))


def result(number: object, **members: Any) -> dict[str, Any]:
    """The result of a request."""
    return {"jsonrpc": "2.0", "id": number, "result": members}
