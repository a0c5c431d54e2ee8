"""A server that does with each connection what the test chooses."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass, field

from orchestrator.http.address import Address
from orchestrator.http.connect import Connector
from orchestrator.http.connection_pool import ConnectionPool

SECONDS = 10
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def head_of(reader: asyncio.StreamReader) -> str:
    """Read a request without a body, up to its empty line."""
    return (await reader.readuntil(b"\r\n\r\n")).decode()


@dataclass
class Server:
    """A server; `serve` has each connection, `connections` counts them, `closed` those that ended."""

    port: int = 0
    connections: int = 0
    closed: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))
    pools: list[ConnectionPool] = field(default_factory=list)

    def pool(self, keep: int = 2, path: str = "") -> ConnectionPool:
        """Connect to it without TLS; its end closes all waiting connections."""
        self.pools.append(ConnectionPool(Connector(Address.parse(f"http://127.0.0.1:{self.port}{path}")), keep))
        return self.pools[-1]


@asynccontextmanager
async def serving(serve: Serve, context: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    """Run a server for a block that takes seconds at most."""
    server, tasks = Server(), set[asyncio.Task[None]]()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server.connections += 1
        try:
            with suppress(asyncio.IncompleteReadError, OSError), closing(writer):
                await serve(reader, writer)
        finally:
            server.closed.release()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.ensure_future(connected(reader, writer)))

    listening = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=context)
    server.port = listening.sockets[0].getsockname()[1]
    try:
        async with asyncio.timeout(SECONDS):
            yield server
    finally:
        for pool in server.pools:
            pool.close()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        listening.close()


def answering(*answers: bytes) -> Serve:
    """Answer one request after another on each connection, then close it."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in answers:
            await head_of(reader)
            writer.write(answer)
            await writer.drain()

    return serve


async def always(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer every request of a connection with an empty object."""
    while True:
        await head_of(reader)
        writer.write(OK)
