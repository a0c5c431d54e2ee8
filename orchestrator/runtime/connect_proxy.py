"""The proxy inside a Sandbox: HTTP CONNECT on 127.0.0.1, each connection a tunnel to the broker, which decides.

Requests follow RFC 9110 9.3.6.
"""

import asyncio
import base64
import hmac
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing, suppress
from http import HTTPStatus

from orchestrator.errors import WireError

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
OpenTunnel = Callable[[str, str, int], Awaitable[Streams | str]]
"""Opens a tunnel for a credential to a host and port, or returns a sentence that explains the refusal."""

_HEAD_BYTES = 8 * 1024
_HEAD_SECONDS = 10.0
_CHUNK_BYTES = 64 * 1024
_PORT = re.compile(r"[0-9]{1,5}", re.ASCII)


class RefusedError(Exception):
    """A request that is answered with this status and sentence."""

    def __init__(self, status: HTTPStatus, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


@asynccontextmanager
async def listen(open_tunnel: OpenTunnel, credential: str) -> AsyncIterator[int]:
    """Open a proxy for `credential` and return its port; leaving the block closes all its connections.

    Clients must send the credential as the password, so that other processes in the Sandbox cannot use this proxy.
    """
    connections: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            connections.add(task)
            task.add_done_callback(connections.discard)
        # Cancelled only when this proxy closes; before Python 3.12, asyncio would log that as an error.
        with closing(writer), suppress(asyncio.CancelledError):
            await _serve(reader, writer, open_tunnel, credential)

    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=_HEAD_BYTES)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in connections:
            task.cancel()
        if connections:
            await asyncio.wait(connections)


async def _serve(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, open_tunnel: OpenTunnel, credential: str
) -> None:
    try:
        tunnel_reader, tunnel_writer = await _open(reader, open_tunnel, credential)
    except RefusedError as refusal:
        writer.write(_answer(refusal))
        return
    except (OSError, EOFError):
        return  # Too slow, or closed before a request.
    with closing(tunnel_writer):
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        try:
            async with asyncio.TaskGroup() as copies:
                copies.create_task(_copy(reader, tunnel_writer))
                copies.create_task(_copy(tunnel_reader, writer))
        except* OSError:
            for end in (writer, tunnel_writer):  # Neither side may mistake a broken stream for a complete one.
                end.transport.abort()


async def _open(reader: asyncio.StreamReader, open_tunnel: OpenTunnel, credential: str) -> Streams:
    host, port = destination(await _read_head(reader), credential)
    try:
        tunnel = await open_tunnel(credential, host, port)
    except (OSError, EOFError, WireError) as error:
        raise RefusedError(HTTPStatus.BAD_GATEWAY, f"{host}:{port} was not reached: the broker is gone") from error
    if isinstance(tunnel, str):
        raise RefusedError(HTTPStatus.FORBIDDEN, tunnel)
    return tunnel


async def _read_head(reader: asyncio.StreamReader) -> str:
    try:
        async with asyncio.timeout(_HEAD_SECONDS):
            return (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.LimitOverrunError as error:
        sentence = f"a proxy request's head must not be over {_HEAD_BYTES} bytes"
        raise RefusedError(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, sentence) from error


def _answer(refusal: RefusedError) -> bytes:
    # Clients show at most the status line. The sentence may contain a host name, but never a line break.
    sentence = " ".join(str(refusal).split())
    body = f"{sentence}\n".encode()
    challenge = refusal.status is HTTPStatus.PROXY_AUTHENTICATION_REQUIRED
    fields = (
        f"HTTP/1.1 {refusal.status.value} {sentence}",
        *(['Proxy-Authenticate: Basic realm="skill"'] if challenge else []),
        "Content-Type: text/plain; charset=utf-8",
        f"Content-Length: {len(body)}",
        "Connection: close",
    )
    return "\r\n".join(fields).encode("ascii", "replace") + b"\r\n\r\n" + body


async def _copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    while chunk := await source.read(_CHUNK_BYTES):
        sink.write(chunk)
        await sink.drain()
    if sink.can_write_eof():
        sink.write_eof()
    else:
        sink.close()  # TLS cannot close one direction only.


def destination(head: str, credential: str) -> tuple[str, int]:
    """Return the host and port of a CONNECT request, if its password is `credential`.

    Raises:
        RefusedError: it is not such a request.
    """
    request, *fields = head.rstrip("\r\n").split("\r\n")
    method, _, rest = request.partition(" ")
    target = rest.partition(" ")[0]
    if not hmac.compare_digest(_offered(fields).encode(), credential.encode()):
        sentence = "this proxy belongs to another skill; use the one that HTTPS_PROXY names"
        raise RefusedError(HTTPStatus.PROXY_AUTHENTICATION_REQUIRED, sentence)
    if method != "CONNECT":
        sentence = "only https leaves a Sandbox: use an https:// address, on port 443"
        raise RefusedError(HTTPStatus.FORBIDDEN, sentence)
    named, _, port = target.rpartition(":")
    host = named.removeprefix("[").removesuffix("]")
    if not host or _PORT.fullmatch(port) is None or not 0 < int(port) < 1 << 16:
        raise RefusedError(HTTPStatus.BAD_REQUEST, "CONNECT needs HOST:PORT")
    return host, int(port)


def _offered(fields: list[str]) -> str:
    for field in fields:
        name, _, value = field.partition(":")
        scheme, _, token = value.strip().partition(" ")
        if name.lower() == "proxy-authorization" and scheme.lower() == "basic":
            try:
                return base64.b64decode(token, validate=True).decode("latin-1").partition(":")[2]
            except ValueError:
                return ""
    return ""
