"""What can happen to an answer on its way, to our client and to the SDK."""

import asyncio
import gzip
import socket
import ssl
import zlib
from collections.abc import AsyncIterator, Mapping
from contextlib import ExitStack, asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from orchestrator.testing.leak_check import nothing_left
from orchestrator.wire.generation import Reply
from tests.judges.apis import APIS, STREAMS
from tests.judges.judge import Problem, both, comparable, ours
from tests.judges.test_streams import REQUEST
from tests.judges.wire import Answer, Wire, serving
from tests.support.certificates import issue

pytestmark = pytest.mark.judges

NAMES = ("anthropic", "openai", "google")
STREAM = {"content-type": "text/event-stream"}


def events(name: str) -> list[bytes]:
    """Return a stream of an API, event by event."""
    return [event + b"\n\n" for event in STREAMS[name]["text"].split(b"\n\n")[:-1]]


def flushed(pieces: list[bytes]) -> list[bytes]:
    """Compress so that each event can be read when it arrives."""
    stream = zlib.compressobj(wbits=zlib.MAX_WBITS | 16)
    return [*(stream.compress(piece) + stream.flush(zlib.Z_SYNC_FLUSH) for piece in pieces), stream.flush()]


def whole(name: str) -> Mapping[str, Answer]:
    """Return answers that are complete."""
    pieces = events(name)
    body = b"".join(pieces)
    return {
        "of a known length": Answer(pieces, framing="length"),
        "to the end of the connection": Answer(pieces, framing="close"),
        "HTTP/1.0": Answer(pieces, framing="HTTP/1.0"),
        "HTTP/1.0 of a known length": Answer(
            pieces, headers=STREAM | {"content-length": str(len(body))}, framing="HTTP/1.0"
        ),
        "after provisional answers": Answer(
            pieces, before=b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: <a>; rel=preload\r\n\r\n"
        ),
        "slow": Answer(pieces, pause=0.02),
        "slower than the limit in all": Answer(pieces, pause=0.2),
        "gzip": Answer([gzip.compress(body)], headers=STREAM | {"content-encoding": "gzip"}, framing="length"),
        "gzip in pieces": Answer(flushed(pieces), headers=STREAM | {"Content-Encoding": "GZIP"}),
        "deflate": Answer([zlib.compress(body)], headers=STREAM | {"content-encoding": "deflate"}),
        "deflate without its head": Answer(
            [zlib.compress(body)[2:-4]], headers=STREAM | {"content-encoding": "deflate"}
        ),
        "an unknown coding": Answer(pieces, headers=STREAM | {"content-encoding": "x-none"}),
        "the type of text": Answer(pieces, headers={"content-type": "text/plain"}),
        "the type of JSON": Answer(pieces, headers={"content-type": "application/json"}),
        "the type of a page": Answer(pieces, headers={"content-type": "text/html; charset=latin-1"}),
        "no type": Answer(pieces, headers={}),
        "many headers": Answer(pieces, headers=STREAM | {f"x-{number}": "y" * 500 for number in range(90)}),
        "a cookie": Answer(pieces, headers=STREAM | {"set-cookie": "a=b"}),
        "chunks with extensions and a trailer": Answer(
            [
                b"HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n%X;x=y\r\n%s\r\n000\r\nX-Trailer: 1\r\n\r\n"
                % (len(body), body)
            ],
            framing="raw",
        ),
        "a bare line feed in the head": Answer([b"HTTP/1.1 200 OK\nx: y\n\n" + body], framing="raw"),
    }


def failing(name: str) -> Mapping[str, Answer]:
    """Return answers that are not complete, or none."""
    pieces = events(name)
    some = pieces[:2]
    return {
        "cut in a chunk": Answer(some, then="cut"),
        "cut in a known length": Answer(some, framing="length", then="cut"),
        "cut at the end of the connection": Answer(pieces[:1], framing="close"),
        "cut in the middle of an event": Answer([some[0], some[1][:20]], framing="close"),
        "cut in gzip": Answer(flushed(pieces)[:1], headers=STREAM | {"content-encoding": "gzip"}, framing="close"),
        "not gzip": Answer(pieces, headers=STREAM | {"content-encoding": "gzip"}),
        "not deflate": Answer(pieces, headers=STREAM | {"content-encoding": "deflate"}),
        "no content": Answer([], 204, framing="raw", before=b""),
        "an empty body": Answer([b""], framing="length"),
        "a page": Answer([b"<html>captive portal</html>\n"], headers={"content-type": "text/html"}),
        "JSON": Answer([b'{"id": "x"}\n'], headers={"content-type": "application/json"}),
        "silence after the head": Answer([], then="stall"),
        "silence after an event": Answer(pieces[:1], then="stall"),
        "silence": Answer([], framing="raw", then="stall"),
        "half a head": Answer([b"HTTP/1.1 200 O"], framing="raw"),
        "another protocol": Answer([b"SSH-2.0-OpenSSH_9.2\r\n\r\n"], framing="raw"),
        "only a provisional answer": Answer([b"HTTP/1.1 100 Continue\r\n\r\n"], framing="raw"),
        "a switch of the protocol": Answer(
            [b"HTTP/1.1 101 Switching\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n"], framing="raw"
        ),
        "a chunk that is none": Answer([b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n"], framing="raw"),
        "two lengths": Answer([b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab"], framing="raw"),
        "a head without an end": Answer([b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 40_000], framing="raw"),
    }


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("case", whole("openai"))
async def test_a_complete_answer_is_the_same_reply(name: str, case: str) -> None:
    """However it is framed, compressed, labelled and delayed."""
    request = replace(REQUEST, timeout=0.5 if case.startswith("slower") else 5)
    async with nothing_left(), asyncio.timeout(60):
        outcome, judged = await both(APIS[name], whole(name)[case], request)
    assert outcome == judged
    assert isinstance(judged, Reply)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("case", failing("openai"))
async def test_an_incomplete_answer_is_the_same_problem(name: str, case: str) -> None:
    """Whether the API was reached, fell silent, or broke off."""
    request = replace(REQUEST, timeout=0.3)
    async with nothing_left(), asyncio.timeout(60):
        outcome, judged = await both(APIS[name], failing(name)[case], request)
    assert isinstance(judged, Problem)
    assert outcome == judged


@pytest.mark.parametrize("is_trusted", [True, False])
@pytest.mark.parametrize("case", ["of a known length", "to the end of the connection", "slow", "gzip in pieces"])
@pytest.mark.parametrize("name", NAMES)
async def test_an_answer_over_tls_is_the_same(name: str, case: str, tmp_path: Path, *, is_trusted: bool) -> None:
    """With an authority that the environment names; another one is a connection that failed."""
    authority = issue(tmp_path, "127.0.0.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    api = replace(APIS[name], env={"SSL_CERT_FILE": str(authority)} if is_trusted else {})
    async with nothing_left(), asyncio.timeout(60):
        outcome, judged = await both(api, whole(name)[case], REQUEST, partial(serving, context=context))
    assert outcome == judged
    assert isinstance(judged, Reply) if is_trusted else judged == Problem("unreachable")


@pytest.mark.parametrize("name", NAMES)
async def test_a_closed_port_is_the_same_problem(name: str) -> None:
    """No server listens."""

    @asynccontextmanager
    async def closed(answer: Answer) -> AsyncIterator[Wire]:
        async with serving(answer) as wire:
            pass
        yield wire

    async with nothing_left(), asyncio.timeout(60):
        outcome, judged = await both(APIS[name], Answer([]), REQUEST, closed)
    assert outcome == judged == Problem("unreachable")


@pytest.mark.parametrize("name", NAMES)
async def test_a_name_with_dead_addresses_is_reached(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One refuses connections, one drops them, and the last one answers."""
    with ExitStack() as stack:

        @asynccontextmanager
        async def at_the_last(answer: Answer) -> AsyncIterator[Wire]:
            async with serving(answer) as wire:
                port = int(wire.url.rpartition(":")[2])
                dropping = stack.enter_context(socket.create_server(("127.0.0.3", port), backlog=0))
                for _ in range(2):
                    waiting = stack.enter_context(socket.socket())
                    waiting.settimeout(0)
                    waiting.connect_ex(dropping.getsockname())
                wire.url = f"http://localhost:{port}"
                yield wire

        def found(_host: Any, port: Any, *_: Any, **__: Any) -> list[Any]:
            addresses = ("127.0.0.2", "127.0.0.3", "127.0.0.1")
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, int(port))) for each in addresses]

        monkeypatch.setattr(socket, "getaddrinfo", found)
        async with asyncio.timeout(60):
            outcome, judged = await both(APIS[name], Answer(events(name)), REQUEST, at_the_last)
    assert outcome == judged
    assert isinstance(judged, Reply)


@pytest.mark.parametrize("name", ["openai", "google"])
@pytest.mark.parametrize("answer", [Answer([b"no"], 407, {}, "length"), Answer([b"no"], 502, {}, "length")])
async def test_a_proxy_gets_the_same_request(name: str, answer: Answer) -> None:
    """For an API with TLS: a request to connect, with the credentials of the proxy's URL."""
    proxied: list[tuple[str, str, str | None]] = []
    outcomes: list[Any] = []
    api = APIS[name]
    for judged in (False, True):
        heads: list[str] = []

        async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, heads: list[str] = heads) -> None:
            heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
            writer.write(answer.head + b"no")
            writer.close()

        async with nothing_left(), asyncio.timeout(60), await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
            proxy = f"http://me:p%40ss@127.0.0.1:{server.sockets[0].getsockname()[1]}"
            setting = api.at("https://api.invalid")
            setting = replace(setting, env={**setting.env, "HTTP_PROXY": proxy, "HTTPS_PROXY": proxy})
            outcomes.append(await (api.judge.reply(setting, REQUEST) if judged else ours(setting, REQUEST)))
        (head,) = heads
        first, *rest = head.split("\r\n")
        headers = {each.partition(": ")[0].lower(): each.partition(": ")[2] for each in rest if each}
        proxied.append((first, headers["host"], headers.get("proxy-authorization")))
    assert proxied[0] == proxied[1] == ("CONNECT api.invalid:443 HTTP/1.1", "api.invalid:443", "Basic bWU6cEBzcw==")
    assert comparable(outcomes[0], outcomes[1]) == outcomes[1]
