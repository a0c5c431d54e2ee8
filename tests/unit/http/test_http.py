"""Requests over real sockets."""

import asyncio
import json
import ssl
from contextlib import closing, nullcontext, suppress
from pathlib import Path

import pytest

from orchestrator.http.address import Address
from orchestrator.http.connect import Connector
from orchestrator.http.connection_pool import ConnectionPool
from orchestrator.http.errors import ConnectionBrokenError, StatusError, retrying
from orchestrator.http.proxies import Proxy
from orchestrator.testing.leak_check import nothing_left
from tests.support.certificates import issue
from tests.support.raw_server import CHUNKED, OK, SECONDS, always, answering, head_of, serving

MANY = 40


async def test_requests_after_one_another_share_a_connection() -> None:
    """A server that keeps the connection open is connected to once."""
    async with serving(always) as server:
        pool = server.pool()
        assert [await pool.json("GET", "/") for _ in range(3)] == [{}] * 3
        assert server.connections == 1


async def test_without_keeping_each_request_has_its_own_connection() -> None:
    """The request asks the server to close it."""
    heads: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await head_of(reader))
        writer.write(OK)

    async with serving(serve) as server:
        pool = server.pool(keep=0)
        assert [await pool.json("GET", "/") for _ in range(2)] == [{}, {}]
        assert (server.connections, ["Connection: close\r\n" in head for head in heads]) == (2, [True, True])


async def test_many_requests_at_once_keep_no_more_connections_than_allowed() -> None:
    """Each gets its own response; afterwards `keep` connections wait for the next requests."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            number = json.dumps((await head_of(reader)).split()[1]).encode()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(number) + number)

    async with serving(serve) as server:
        pool = server.pool()
        async with asyncio.TaskGroup() as tasks:
            asked = [tasks.create_task(pool.json("GET", f"/{number}")) for number in range(MANY)]
        assert [task.result() for task in asked] == [f"/{number}" for number in range(MANY)]
        for _ in range(server.connections - 2):
            await server.closed.acquire()
        before = server.connections
        await pool.json("GET", "/again")
        assert server.connections == before


async def test_a_connection_that_the_server_closed_is_not_used_again() -> None:
    """The next request goes over a new one."""
    async with serving(answering(OK)) as server:
        pool = server.pool()
        await pool.json("GET", "/")
        await server.closed.acquire()
        while pool._idle[0][1].is_open:  # noqa: ASYNC110, SLF001 - nothing else shows that the end has arrived
            await asyncio.sleep(0)
        assert await pool.json("GET", "/") == {}
        assert server.connections == 2


async def test_a_body_that_was_not_read_closes_its_connection() -> None:
    """Its rest would be read as the next response."""
    async with serving(always) as server:
        pool = server.pool()
        async with pool.request("GET", "/") as response:
            assert response.status == 200
        await server.closed.acquire()
        assert await pool.json("GET", "/") == {}
        assert server.connections == 2


async def test_a_request_that_is_cancelled_closes_its_connection() -> None:
    """The response that comes after all must not be read as another one."""
    asked = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await head_of(reader)
        asked.set()
        await reader.read()

    async with serving(serve) as server:
        pool = server.pool()
        task = asyncio.ensure_future(pool.json("GET", "/"))
        await asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await server.closed.acquire()


async def test_chunks_come_as_they_are_sent() -> None:
    """A stream without an end is read as it arrives; leaving the block closes its connection."""
    read = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head_of(reader)
        writer.write(CHUNKED + b"3\r\none\r\n")
        await read.wait()
        writer.write(b"3\r\ntwo\r\n")
        await reader.read()

    async with serving(serve) as server:
        async with server.pool().stream("/", {}) as response:
            chunks = response.chunks()
            assert await anext(chunks) == b"one"
            read.set()
            assert await anext(chunks) == b"two"
            await chunks.aclose()
        await server.closed.acquire()


async def test_a_body_that_was_read_is_empty_when_read_again() -> None:
    """The end of a response stays its end."""
    async with serving(always) as server, server.pool().request("GET", "/") as response:
        assert (await response.json(), await response.json()) == ({}, None)


@pytest.mark.parametrize(
    ("answer", "answered"),
    [
        pytest.param(b"", False, id="no response"),
        pytest.param(b"HTTP/1.1 200 O", False, id="half a head"),
        pytest.param(b"SSH-2.0-server\r\n\r\n", False, id="another protocol"),
        pytest.param(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000 + OK[15:], False, id="a huge head"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{", True, id="half a body"),
        pytest.param(CHUNKED + b"9\r\n{", True, id="half a chunk"),
        pytest.param(CHUNKED + b"2\r\n{}\r\n", True, id="no last chunk"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{]}", True, id="not JSON"),
    ],
)
async def test_the_error_of_a_cut_response_has_whether_it_had_begun(answer: bytes, answered: bool) -> None:  # noqa: FBT001
    """The request was sent in each case, so a caller may not assume that nothing was done."""
    async with serving(answering(answer)) as server:
        with pytest.raises(ConnectionBrokenError) as caught:
            await server.pool().json("GET", "/")
        assert (caught.value.sent, caught.value.answered) == (True, answered)


async def test_a_server_that_is_not_there_was_sent_nothing() -> None:
    """The cause is the system's error."""
    async with serving(always) as server:
        pass
    with pytest.raises(ConnectionBrokenError, match=f"no connection to http://127.0.0.1:{server.port}") as caught:
        await server.pool().json("GET", "/")
    assert (caught.value.sent, caught.value.answered) == (False, False)
    assert isinstance(caught.value.__cause__, ConnectionRefusedError)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        pytest.param(b'{"message": "no such thing"}', "no such thing", id="an object with a message"),
        pytest.param(b'{"code": 1}', "{'code': 1}", id="another object"),
        pytest.param(b" plain words\n", "plain words", id="text"),
        pytest.param(b"", "", id="nothing"),
    ],
)
async def test_a_failure_has_the_status_and_the_message(body: bytes, message: str) -> None:
    """Its connection is used again: the response was complete."""
    failure = b"HTTP/1.1 409 Conflict\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    async with serving(answering(failure, OK)) as server:
        pool = server.pool()
        with pytest.raises(StatusError) as caught:
            await pool.json("GET", "/")
        assert (caught.value.status, str(caught.value)) == (409, message)
        assert await pool.json("GET", "/") == {}
        assert server.connections == 1


async def test_a_failure_without_an_end_is_read_in_part() -> None:
    """A server must not fill the memory with it."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head_of(reader)
        writer.write(b"HTTP/1.1 500 No\r\n\r\n")
        while True:
            writer.write(b"x" * 10_000)
            await writer.drain()

    async with serving(serve) as server:
        with pytest.raises(StatusError) as caught:
            await server.pool().json("GET", "/")
        assert str(caught.value) == "x" * 64 * 1024


async def test_headers_are_by_name_in_lower_case() -> None:
    """Repeated ones are joined, and a provisional response comes before the one that counts."""
    head = b"Retry-After: 3\r\nVary: a\r\nVary: b\r\nContent-Length: 0\r\n\r\n"
    answer = b"HTTP/1.1 103 Hints\r\n\r\nHTTP/1.1 200 OK\r\n" + head
    async with serving(answering(answer)) as server, server.pool().request("GET", "/") as response:
        assert response.headers == {"retry-after": "3", "vary": "a, b", "content-length": "0"}


async def test_a_request_is_as_it_was_given() -> None:
    """The address's path begins the target, the query is encoded, and the body is JSON of a known length."""
    received: list[tuple[str, bytes]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received.append((await head_of(reader), await reader.readexactly(len('{"a": "é"}') + 5)))
        writer.write(OK)

    async with serving(serve) as server:
        await server.pool(path="/base/").json("POST", "/x", {"q": "a b&c"}, {"a": "é"}, {"X-One": "1"})
        head = (
            "POST /base/x?q=a+b%26c HTTP/1.1\r\n"
            f"Host: 127.0.0.1:{server.port}\r\nContent-Length: 15\r\nContent-Type: application/json\r\nX-One: 1\r\n\r\n"
        )
        assert received == [(head, b'{"a": "\\u00e9"}')]


async def test_a_unix_socket_is_an_address(tmp_path: Path) -> None:
    """The socket of an engine is one."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer):
            await head_of(reader)
            writer.write(OK)

    async with await asyncio.start_unix_server(serve, tmp_path / "engine.sock"), asyncio.timeout(SECONDS):
        pool = ConnectionPool(Connector(Address.parse(f"unix://{tmp_path}/engine.sock")), keep=0)
        assert await pool.json("GET", "/") == {}


async def test_an_upgrade_gives_what_came_behind_it() -> None:
    """After that the connection belongs to another protocol."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head_of(reader)
        writer.write(b"HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\nearly")
        writer.write(await reader.readexactly(4))

    async with (
        serving(serve) as server,
        server.pool().upgrade("/", {}, {"Connection": "Upgrade", "Upgrade": "tcp"}) as (connection, early),
    ):
        connection.writer.write(b"echo")
        assert early + await connection.reader.readexactly(9 - len(early)) == b"earlyecho"


@pytest.mark.parametrize("status", [200, 403])
async def test_an_upgrade_that_is_refused_is_a_failure(status: int) -> None:
    """Whatever the status: the server did not change the protocol."""
    answer = b'HTTP/1.1 %d -\r\nContent-Length: 17\r\n\r\n{"message": "no"}' % status
    async with serving(answering(answer)) as server:
        with pytest.raises(StatusError, match="no") as caught:
            async with server.pool().upgrade("/", {}, {"Connection": "Upgrade", "Upgrade": "tcp"}):
                pytest.fail("it was not upgraded")
        assert caught.value.status == status


@pytest.fixture
def contexts(tmp_path: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A certificate for api.example, and a client's trust in it."""
    authority = issue(tmp_path, "api.example")
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    return server, ssl.create_default_context(cafile=str(authority))


async def test_tls_verifies_the_name(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    """The name is the address's own, or the one that was given in its place."""
    async with serving(always, contexts[0]) as server:
        address = Address.parse(f"https://127.0.0.1:{server.port}")
        named = ConnectionPool(Connector(address, contexts[1], "api.example"), keep=1)
        assert await named.json("GET", "/") == {}
        named.close()
        with pytest.raises(ConnectionBrokenError) as caught:
            await ConnectionPool(Connector(address, contexts[1]), keep=1).json("GET", "/")
        assert isinstance(caught.value.__cause__, ssl.SSLCertVerificationError)


async def test_a_proxy_leads_to_a_server_with_tls(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    """It gets one request for a connection and sees only encrypted data; requests share that connection."""
    heads: list[str] = []
    async with serving(always, contexts[0]) as server:

        async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            heads.append(await head_of(reader))
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(copy(reader, far_writer))
                tasks.create_task(copy(far_reader, writer))

        async with serving(forward) as proxy:
            leading = Proxy.parse(f"http://me:p%40ss@127.0.0.1:{proxy.port}")
            pool = ConnectionPool(Connector(Address.parse("https://api.example"), contexts[1], proxy=leading), keep=1)
            assert [await pool.json("GET", "/") for _ in range(2)] == [{}, {}]
            pool.close()
            await proxy.closed.acquire()
    assert heads == [
        "CONNECT api.example:443 HTTP/1.1\r\nHost: api.example:443\r\nProxy-Authorization: Basic bWU6cEBzcw==\r\n\r\n"
    ]


@pytest.mark.parametrize(("host", "is_trusted"), [("localhost", True), ("127.0.0.1", False)])
async def test_a_proxy_may_use_tls_itself(tmp_path: Path, host: str, is_trusted: bool) -> None:  # noqa: FBT001
    """Its certificate is verified like a server's, and TLS with the server goes through its TLS."""
    authority = issue(tmp_path, "api.example", "localhost")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    async with nothing_left(), serving(always, context) as server:

        async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await head_of(reader)
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(copy(reader, far_writer))
                tasks.create_task(copy(far_reader, writer))

        async with serving(forward, context) as proxy:
            leading = Proxy.parse(f"https://{host}:{proxy.port}")
            trust = ssl.create_default_context(cafile=str(authority))
            pool = ConnectionPool(Connector(Address.parse("https://api.example"), trust, proxy=leading), keep=1)
            with nullcontext() if is_trusted else pytest.raises(ConnectionBrokenError, match="no connection to"):
                assert [await pool.json("GET", "/") for _ in range(2)] == [{}, {}]
            pool.close()


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Carry one direction to its end."""
    with closing(writer), suppress(OSError):
        while content := await reader.read(1000):
            writer.write(content)
            await writer.drain()


async def test_a_proxy_takes_the_url_of_a_request_without_tls() -> None:
    """It needs the server's name, which the path lacks."""
    heads: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await head_of(reader))
        writer.write(OK)

    async with serving(serve) as proxy:
        leading = Proxy.parse(f"127.0.0.1:{proxy.port}")
        pool = ConnectionPool(Connector(Address.parse("http://api.example/v1"), proxy=leading), keep=0)
        assert await pool.json("GET", "/models") == {}
    rest = "Host: api.example\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    assert heads == [f"GET http://api.example/v1/models HTTP/1.1\r\n{rest}"]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (
            b"HTTP/1.1 407 No\r\nContent-Length: 6\r\n\r\nlog in",
            r"does not connect to https://api.example \(407: log in\)",
        ),
        (b"", r"does not connect to https://api.example \(the server closed the connection before it answered\)"),
        (b"HTTP/1.1 200 OK\r\n\r\nhello", r"the proxy sent something that was not asked for"),
        # The head fills what is read at a time, and what follows is still in the buffer.
        (b"HTTP/1.1 200 OK\r\nX: ".ljust(64 * 1024 - 4, b"x") + b"\r\n\r\n" + OK, r"something that was not asked for"),
    ],
)
async def test_a_proxy_that_does_not_connect_sent_nothing_on(answer: bytes, message: str) -> None:
    """So it is safe to send any request again."""
    async with serving(answering(answer)) as proxy:
        leading = Proxy.parse(f"127.0.0.1:{proxy.port}")
        with pytest.raises(ConnectionBrokenError, match=message) as caught:
            await ConnectionPool(Connector(Address.parse("https://api.example"), proxy=leading), keep=1).json(
                "GET", "/"
            )
        assert caught.value.sent is False


@pytest.mark.parametrize("url", ["ftp://x", "http://", "unix://", "here"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    """The error names it."""
    with pytest.raises(ValueError, match="is not the address of an HTTP server"):
        Address.parse(url)


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("unix:///run/x.sock", Address("unix", "", 0, "/run/x.sock", "localhost")),
        ("tcp://127.0.0.1:2375", Address("tcp", "127.0.0.1", 2375, "", "127.0.0.1:2375")),
        ("https://[fd00::1]:6443", Address("https", "fd00::1", 6443, "", "[fd00::1]:6443")),
        ("https://me@h/k8s/c-1/", Address("https", "h", 443, "/k8s/c-1", "h")),
    ],
)
def test_an_address_is_read_and_written(url: str, address: Address) -> None:
    """The address has no user, final slash or password."""
    assert Address.parse(url) == address
    assert Address.parse(str(address)) == address


BUSY = StatusError(503, "busy")
UNSENT = ConnectionBrokenError("no connection", answered=False, sent=False)
LOST = ConnectionBrokenError("the connection broke", answered=False)


@pytest.mark.parametrize(
    ("failure", "idempotent", "calls"),
    [
        pytest.param(BUSY, False, 3, id="a status to wait for"),
        pytest.param(StatusError(404, "gone"), True, 1, id="another status"),
        pytest.param(UNSENT, False, 3, id="not sent"),
        pytest.param(LOST, False, 1, id="perhaps carried out"),
        pytest.param(LOST, True, 3, id="perhaps carried out, and idempotent"),
    ],
)
async def test_a_request_is_sent_again_only_if_that_is_safe(
    failure: StatusError | ConnectionBrokenError,
    idempotent: bool,  # noqa: FBT001
    calls: int,
) -> None:
    """It is sent again as often as there are pauses; then its last failure is raised."""
    made: list[None] = []

    async def call() -> None:
        made.append(None)
        raise failure

    with pytest.raises(type(failure)) as caught:
        await retrying(call, (0, 0), idempotent=idempotent, statuses={503})
    assert (caught.value, len(made)) == (failure, calls)
