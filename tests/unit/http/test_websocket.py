"""WebSocket frames, against a server of another implementation."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from websockets.asyncio.server import ServerConnection, serve

from orchestrator.http.address import Address
from orchestrator.http.connect import Connector
from orchestrator.http.connection_pool import ConnectionPool
from orchestrator.http.errors import ConnectionBrokenError
from orchestrator.http.websocket import WebSocket, handshake

PROTOCOL = "v4.channel.k8s.io"
SIZES = (0, 1, 125, 126, 127, 65535, 65536, 200_000)


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[WebSocket]:
    """Connect like the API client."""
    pool = ConnectionPool(Connector(Address.parse(f"http://127.0.0.1:{port}")), keep=1)
    async with pool.upgrade("/", {"ports": "1"}, handshake(PROTOCOL)) as (connection, early):
        yield WebSocket(connection, early)


@asynccontextmanager
async def echoing() -> AsyncIterator[int]:
    """Run a server that echoes messages, after a greeting and a ping; yield its port."""

    async def echo(connection: ServerConnection) -> None:
        await connection.send(b"hello")
        answered = await connection.ping(b"are you there")
        async for message in connection:
            if message == b"bye":
                break
            await connection.send([message[:1], message[1:]] if message else message)
            await answered

    async with serve(echo, "127.0.0.1", 0, subprotocols=[PROTOCOL], max_size=None) as server:  # type: ignore[list-item]
        yield next(iter(server.sockets)).getsockname()[1]


async def test_messages_of_any_size_go_and_come() -> None:
    """Messages of all sizes pass, also in fragments, around a ping, and directly after the handshake."""
    async with asyncio.timeout(20), echoing() as port, connected(port) as socket:
        messages = socket.messages()
        assert await anext(messages) == b"hello"
        for size in SIZES:
            content = bytes(number % 251 for number in range(size))
            await socket.send(content)
            assert await anext(messages) == content
        await socket.send(b"bye")
        assert [message async for message in messages] == []


async def test_a_connection_that_breaks_is_no_end() -> None:
    """A connection without a close frame is an error: data may be missing."""

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        answer = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
        writer.write(answer + b"\x82\x05hel")
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    async with asyncio.timeout(20), server, connected(server.sockets[0].getsockname()[1]) as socket:
        with pytest.raises(ConnectionBrokenError):
            await anext(socket.messages())
