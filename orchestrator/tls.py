"""TLS in the memory that OpenSSL takes for it.

asyncio's own reserves 256 KiB for each connection (`SSLProtocol.max_size`, which nothing sets), and in a cluster an
orchestrator has two for each Sandbox: its end of the link, and the log that it follows.
"""

import asyncio
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import Any, cast

HANDSHAKE_SECONDS = 10.0
_GOODBYE_SECONDS = 5.0
"""How long the other end may take to close what this end has closed."""

_CHUNK = 64 * 1024

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Accept = Callable[[asyncio.StreamReader, asyncio.StreamWriter], None]


async def open_connection(host: str, port: int, context: ssl.SSLContext, name: str, limit: int) -> Connection:
    """Connect, and speak TLS with the server of this `name`. `limit` is how much is read ahead, in bytes.

    Raises:
        OSError: nobody is there, or it is somebody else (`ssl.SSLError`).
    """
    loop = asyncio.get_running_loop()
    connected: asyncio.Future[Connection] = loop.create_future()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not connected.done():
            connected.set_result((reader, writer))

    def failed(error: OSError) -> None:
        if not connected.done():
            connected.set_exception(error)

    transport, _ = await loop.create_connection(
        lambda: _Tls(context, _streams(accept, limit), failed, name), host, port
    )
    try:
        return await connected
    except BaseException:
        transport.abort()
        raise


async def start_server(accept: Accept, listener: socket.socket, context: ssl.SSLContext, limit: int) -> asyncio.Server:
    """Hand every connection to `accept` once its handshake is done; one that never is, is closed."""
    loop = asyncio.get_running_loop()
    return await loop.create_server(lambda: _Tls(context, _streams(accept, limit), lambda _: None), sock=listener)


def _streams(accept: Accept, limit: int) -> asyncio.StreamReaderProtocol:
    return asyncio.StreamReaderProtocol(asyncio.StreamReader(limit), accept)


class _Tls(asyncio.Protocol, asyncio.Transport):
    """A protocol towards the socket and a transport towards `inner`, which hears of a connection after the handshake.

    `failed` hears why there is none. Who has no `name` to ask for is the server.
    """

    _socket: asyncio.Transport

    def __init__(
        self,
        context: ssl.SSLContext,
        inner: asyncio.Protocol,
        failed: Callable[[OSError], None],
        name: str | None = None,
    ) -> None:
        super().__init__()
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, name is None, name)
        self._inner = inner
        self._failed = failed
        self._shaken = False
        self._closing = False
        self._error: OSError | None = None
        self._timer: asyncio.TimerHandle | None = None

    # Towards the socket.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._socket = cast("asyncio.Transport", transport)
        self._timer = asyncio.get_running_loop().call_later(HANDSHAKE_SECONDS, self._give_up)
        self._shake()

    def data_received(self, data: bytes) -> None:
        if self._closing:
            return
        self._incoming.write(data)
        if not self._shaken:
            self._shake()
        if self._shaken:
            self._read()

    def connection_lost(self, exc: Exception | None) -> None:
        self._closing = True
        if self._timer is not None:
            self._timer.cancel()
        if self._shaken:
            self._inner.connection_lost(self._error or exc)
        else:
            told = exc if isinstance(exc, OSError) else ConnectionResetError("it hung up during the TLS handshake")
            self._failed(self._error or told)

    def pause_writing(self) -> None:
        if self._shaken:
            self._inner.pause_writing()

    def resume_writing(self) -> None:
        if self._shaken:
            self._inner.resume_writing()

    def _shake(self) -> None:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
            return
        except ssl.SSLError as error:
            self._break(error)
            return
        self._flush()
        if self._timer is not None:
            self._timer.cancel()
        self._shaken = True
        self._inner.connection_made(self)

    def _read(self) -> None:
        try:
            while not self._closing:
                plain = self._tls.read(_CHUNK)
                if not plain:
                    # Its end is the end of both directions.
                    self._inner.eof_received()
                    self.close()
                    return
                self._inner.data_received(plain)
        except ssl.SSLWantReadError:
            self._flush()
        except ssl.SSLError as error:
            self._break(error)

    def _flush(self) -> None:
        if self._outgoing.pending:
            self._socket.write(self._outgoing.read())

    def _break(self, error: OSError) -> None:
        """Close with what was said about it, and say so here too."""
        self._error = self._error or error
        self._flush()
        self._closing = True
        self._socket.close()

    def _give_up(self) -> None:
        self._error = TimeoutError(f"the TLS handshake took longer than {HANDSHAKE_SECONDS:.0f} s")
        self._socket.abort()

    # Towards who reads and writes.

    def write(self, data: bytes | bytearray | memoryview) -> None:
        left = memoryview(data)
        try:
            while left and not self._closing:
                left = left[self._tls.write(left) :]
        except ssl.SSLError as error:
            self._break(error)
        self._flush()

    def can_write_eof(self) -> bool:
        return False

    def close(self) -> None:
        """Say goodbye, and wait for theirs: closed at once, what they have not read yet might be lost on its way."""
        if self._closing:
            return
        self._closing = True
        with suppress(ssl.SSLError):
            self._tls.unwrap()
        self._flush()
        if self._socket.is_closing():
            return
        self._socket.write_eof()
        self._socket.resume_reading()
        self._timer = asyncio.get_running_loop().call_later(_GOODBYE_SECONDS, self._socket.abort)

    def abort(self) -> None:
        self._closing = True
        self._socket.abort()

    def is_closing(self) -> bool:
        return self._closing or self._socket.is_closing()

    def pause_reading(self) -> None:
        self._socket.pause_reading()

    def resume_reading(self) -> None:
        self._socket.resume_reading()

    def get_write_buffer_size(self) -> int:
        return self._socket.get_write_buffer_size()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        own = {"ssl_object": self._tls, "sslcontext": self._tls.context}
        return own.get(name) or self._socket.get_extra_info(name, default)
