"""The proxy inside a Sandbox: HTTP CONNECT on 127.0.0.1, each connection tunnelled to the broker, which decides."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing, suppress
from http import HTTPStatus

from orchestrator.errors import WireError
from orchestrator.runtime.proxy_request import RefusedError, destination

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
OpenTunnel = Callable[[str, str, int], Awaitable[Streams | str]]
"""Opens a way out for the bearer of a credential to a host and port, or says in a sentence why not."""

_HEAD_BYTES = 8 * 1024
_HEAD_SECONDS = 10.0
_CHUNK_BYTES = 64 * 1024


@asynccontextmanager
async def listen(open_tunnel: OpenTunnel, credential: str) -> AsyncIterator[int]:
    """Open a proxy for the bearer of `credential` and give its port; leaving the block ends all its connections.

    The credential is asked for as the password, so that nobody else in the Sandbox goes where its bearer may.
    """
    connections: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            connections.add(task)
            task.add_done_callback(connections.discard)
        # Cancelled by nobody but this proxy's end; left to itself, asyncio logs that as an error before Python 3.12.
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
        far_reader, far_writer = await _open(reader, open_tunnel, credential)
    except RefusedError as refusal:
        writer.write(_answer(refusal))
        return
    except (OSError, EOFError):
        return  # Slow or gone before it asked for anything.
    with closing(far_writer):
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        try:
            async with asyncio.TaskGroup() as copies:
                copies.create_task(_copy(reader, far_writer))
                copies.create_task(_copy(far_reader, writer))
        except* OSError:
            for end in (writer, far_writer):  # Neither side must take a broken stream for a whole one.
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
    # A client shows the status line at best; the sentence may hold a host's name, but never the end of a line.
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
        sink.close()  # Over TLS one direction cannot end without the other.
