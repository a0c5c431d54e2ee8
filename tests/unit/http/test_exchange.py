"""Requests that get their response whatever its status, and what happens to connections that have waited."""

import asyncio
import socket
import threading
from collections.abc import Sequence
from contextlib import suppress

import pytest

from orchestrator.http.address import Address
from orchestrator.http.connect import Connector
from orchestrator.http.connection_pool import ConnectionPool
from orchestrator.http.errors import ConnectionBrokenError
from orchestrator.testing.leak_check import nothing_left
from tests.support.raw_server import OK, SECONDS, Serve, answering, head_of, serving


async def exchange(pool: ConnectionPool) -> tuple[int, bytes]:
    """Send a request; return the status and the body."""
    async with pool.exchange("POST", "/", body={"a": 1}) as response:
        return response.status, b"".join([chunk async for chunk in response.chunks()])


@pytest.mark.parametrize("status", [200, 204, 307, 404, 500])
async def test_every_status_is_a_response(status: int) -> None:
    """Its body is read by the block, and its connection is used again."""
    length = b"" if status == 204 else b"Content-Length: 2\r\n"
    answer = b"HTTP/1.1 %d -\r\n%s\r\n%s" % (status, length, b"" if status == 204 else b"no")
    async with nothing_left(), serving(answering(answer, OK)) as server:
        pool = server.pool()
        assert await exchange(pool) == (status, b"" if status == 204 else b"no")
        assert await exchange(pool) == (200, b"{}")
        assert server.connections == 1


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (b"HTTP/1.0 200 OK\r\n\r\nto the end", b"to the end"),
        (b"HTTP/1.1 200 OK\r\n\r\nto the end", b"to the end"),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 3\r\n\r\none", b"one"),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\none", b"one"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\none\r\n0\r\nTrailer: 1\r\n\r\n", b"one"),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nLink: a\r\n\r\nHTTP/1.1 200 OK\r\n\r\none", b"one"),
    ],
)
async def test_bodies_end_as_their_head_states(answer: bytes, body: bytes) -> None:
    """A connection whose end is the body's is not used again."""
    async with nothing_left(), serving(answering(answer)) as server:
        pool = server.pool()
        assert await exchange(pool) == (200, body)
        assert await exchange(pool) == (200, body)
        assert server.connections == 2


def one_after_another(*serves: Serve) -> Serve:
    """Serve each connection in its own way."""
    left = iter(serves)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await next(left)(reader, writer)

    return serve


def closing_at_the_next(answer: bytes, rest: bytes = b"") -> Serve:
    """Answer one request; when the next one comes, send `rest` and close."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head_of(reader)
        await reader.readexactly(len('{"a": 1}'))
        writer.write(answer)
        await head_of(reader)
        await reader.readexactly(len('{"a": 1}'))
        writer.write(rest)

    return serve


async def test_a_request_on_a_connection_that_closes_is_sent_once_more() -> None:
    """The server closed what had waited for it, at the moment when the request was on its way."""
    async with nothing_left(), serving(one_after_another(closing_at_the_next(OK), answering(OK))) as server:
        pool = server.pool()
        assert [await exchange(pool) for _ in range(2)] == [(200, b"{}")] * 2
        assert server.connections == 2


@pytest.mark.parametrize(
    ("serves", "connections"),
    [
        pytest.param([closing_at_the_next(OK, b"HTTP/1.1 200 O")], 1, id="an answer had begun"),
        pytest.param([closing_at_the_next(OK), answering(b"")], 2, id="the new connection closes, too"),
    ],
)
async def test_it_is_not_sent_again_otherwise(serves: Sequence[Serve], connections: int) -> None:
    """The server may have carried it out."""
    async with nothing_left(), serving(one_after_another(*serves)) as server:
        pool = server.pool()
        await exchange(pool)
        with pytest.raises(ConnectionBrokenError) as caught:
            await exchange(pool)
        assert (caught.value.sent, caught.value.answered, server.connections) == (True, False, connections)


async def test_a_new_connection_that_closes_is_an_error_at_once() -> None:
    """Nothing is known of what the server has done by then."""
    async with nothing_left(), serving(answering(b"")) as server:
        with pytest.raises(ConnectionBrokenError) as caught:
            await exchange(server.pool())
        assert (caught.value.sent, server.connections) == (True, 1)


async def test_what_a_server_says_unasked_is_no_response() -> None:
    """Proxies send 408 to a connection that waits for long, and close it."""
    late = b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n"
    told = asyncio.Event()

    async def timing_out(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head_of(reader)
        await reader.readexactly(len('{"a": 1}'))
        writer.write(OK)
        await told.wait()
        writer.write(late)
        await reader.read()

    async with nothing_left(), serving(one_after_another(timing_out, answering(OK))) as server:
        pool = server.pool()
        assert await exchange(pool) == (200, b"{}")
        told.set()
        (_, waiting), *_ = pool._idle  # noqa: SLF001 - nothing else shows that it has arrived
        while not waiting.reader._buffer:  # type: ignore[attr-defined]  # noqa: ASYNC110, SLF001
            await asyncio.sleep(0)
        assert await exchange(pool) == (200, b"{}")
        assert server.connections == 2


async def test_a_connection_that_waited_for_too_long_is_not_used_again() -> None:
    """What is between here and the server forgets such connections, and a request over one gets no answer at all."""
    async with nothing_left(), serving(answering(OK, OK)) as server:
        pool = ConnectionPool(Connector(Address.parse(f"http://127.0.0.1:{server.port}")), keep=1, seconds=0.1)
        assert await exchange(pool) == (200, b"{}")
        await asyncio.sleep(0.15)
        assert await exchange(pool) == (200, b"{}")
        assert server.connections == 2
        pool.close()


async def test_a_cancelled_request_leaves_nothing() -> None:
    """Neither on a new connection nor on one that had waited."""

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head_of(reader)
        await reader.readexactly(len('{"a": 1}'))
        writer.write(OK)
        await reader.read()
        writer.close()

    async with nothing_left(), serving(silent) as server:
        pool = server.pool()
        await exchange(pool)
        with suppress(TimeoutError):
            async with asyncio.timeout(0.1):
                await exchange(pool)
                pytest.fail("it was answered")
        await server.closed.acquire()


async def test_a_refusal_before_the_body_is_read_is_read_all_the_same() -> None:
    """A server that does not want megabytes answers and closes while they are on their way."""

    async def refusing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head_of(reader)
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")
        await writer.drain()
        while await reader.read(1 << 16):
            pass

    async with (
        nothing_left(),
        serving(refusing) as server,
        server.pool().exchange("POST", "/", body=bytes(1 << 22)) as response,
    ):
        assert response.status == 413
        assert b"".join([chunk async for chunk in response.chunks()]) == b"no"


async def test_headers_replace_each_other_whatever_their_case() -> None:
    """A setting may replace a header of ours, the host included."""
    heads: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await head_of(reader))
        writer.write(OK)

    async with nothing_left(), serving(serve) as server:
        headers = {"host": "gateway.example", "content-type": "application/x", "X-One": "1"}
        async with server.pool(keep=0).exchange("POST", "/", body={}, headers=headers) as response:
            assert response.status == 200
    assert sorted(heads[0].split("\r\n")) == sorted(
        [
            "POST / HTTP/1.1",
            "host: gateway.example",
            "Content-Length: 2",
            "content-type: application/x",
            "X-One: 1",
            "Connection: close",
            "",
            "",
        ]
    )


async def test_what_follows_a_response_is_not_the_answer_of_the_next_request() -> None:
    """The next request goes over a new connection."""
    planted = b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nplanted"
    async with nothing_left(), serving(answering(OK + planted, OK)) as server:
        pool = server.pool()
        assert [await exchange(pool) for _ in range(2)] == [(200, b"{}"), (200, b"{}")]
        assert server.connections == 2


async def test_what_a_server_sends_on_a_waiting_connection_is_not_an_answer() -> None:
    """Also if it arrived while the event loop did something else."""
    listening = socket.create_server(("127.0.0.1", 0))
    sent = threading.Event()

    def serve() -> None:
        first, _ = listening.accept()
        with first:
            first.recv(1000)
            first.sendall(OK)
            asked.wait(SECONDS)
            first.sendall(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n")
            sent.set()
            second, _ = listening.accept()
            with second:
                second.recv(1000)
                second.sendall(OK)
                second.recv(1000)

    asked = threading.Event()
    server = threading.Thread(target=serve)
    server.start()
    pool = ConnectionPool(Connector(Address.parse(f"http://127.0.0.1:{listening.getsockname()[1]}")), keep=1)
    try:
        assert await exchange(pool) == (200, b"{}")
        asked.set()
        sent.wait(SECONDS)
        assert await exchange(pool) == (200, b"{}")
    finally:
        pool.close()
        await asyncio.to_thread(server.join)
        listening.close()
