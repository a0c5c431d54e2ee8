"""A server that records requests byte for byte, and answers with bytes that the test frames."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Literal

Framing = Literal["chunked", "length", "close", "HTTP/1.0", "raw"]


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer whose body is sent in pieces, with `pause` seconds between them.

    Chunked, each piece is a chunk. `raw`: the pieces are all that is sent, the head included. `then` is what follows
    the last piece: the end of the body, the end of the connection in the middle of the body, or nothing.
    """

    pieces: Sequence[bytes]
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=lambda: {"content-type": "text/event-stream; charset=utf-8"})
    framing: Framing = "chunked"
    before: bytes = b""
    then: Literal["end", "cut", "stall"] = "end"
    pause: float = 0

    def cut(self, *places: int) -> "Answer":
        """Return the same body, cut at these places."""
        body = b"".join(self.pieces)
        bounds = zip((0, *places), (*places, len(body)), strict=True)
        return replace(self, pieces=tuple(body[start:stop] for start, stop in bounds))

    @property
    def head(self) -> bytes:
        """The head that goes before the body."""
        if self.framing == "raw":
            return b""
        version = "HTTP/1.0" if self.framing == "HTTP/1.0" else "HTTP/1.1"
        size = sum(map(len, self.pieces)) + (9 if self.then == "cut" else 0)
        framed = {"chunked": {"transfer-encoding": "chunked"}, "length": {"content-length": str(size)}}
        headers = {**self.headers, **framed.get(self.framing, {})}
        lines = [f"{version} {self.status} -", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
        return self.before + "\r\n".join(lines).encode()


@dataclass(frozen=True, slots=True)
class Sent:
    """A request as it came: `headers` by name in lower case, `body` parsed."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: Any


@dataclass(slots=True)
class Wire:
    """What a server received, and over how many connections; `answers` are given in order, the last one again."""

    url: str = ""
    answers: list[Answer] = field(default_factory=list)
    sent: list[Sent] = field(default_factory=list)
    connections: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer requests while the framing allows it."""
        self.connections += 1
        try:
            while True:
                self.sent.append(await _receive(reader))
                answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
                await _answer(answer, reader, writer)
                if answer.then != "end" or answer.framing not in ("chunked", "length"):
                    break
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def serving(*answers: Answer, context: ssl.SSLContext | None = None) -> AsyncIterator[Wire]:
    """Serve on a free port of loopback; with a context, over TLS."""
    wire, tasks = Wire(answers=list(answers)), set[asyncio.Task[None]]()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.ensure_future(wire.serve(reader, writer)))

    async with await asyncio.start_server(accept, "127.0.0.1", 0, ssl=context) as server:
        scheme = "http" if context is None else "https"
        wire.url = f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield wire
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


async def _receive(reader: asyncio.StreamReader) -> Sent:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("ascii").split("\r\n")
    method, target, _ = head[0].split(" ")
    headers: dict[str, str] = {}
    for name, _, value in (line.partition(":") for line in head[1:] if line):
        assert name.lower() not in headers, f"{name} is sent twice"
        headers[name.lower()] = value.strip()
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Sent(method, target, headers, json.loads(body) if body else None)


async def _answer(answer: Answer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(answer.head)
    for piece in answer.pieces:
        if answer.pause:
            await writer.drain()
            await asyncio.sleep(answer.pause)
        chunked = answer.framing == "chunked"
        writer.write(b"%x\r\n%s\r\n" % (len(piece), piece) if chunked and piece else piece)
    if answer.then == "end" and answer.framing == "chunked":
        writer.write(b"0\r\n\r\n")
    await writer.drain()
    if answer.then == "stall":
        await reader.read()
