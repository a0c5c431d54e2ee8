"""TLS in the memory that OpenSSL takes for it.

asyncio's own reserves 256 KiB for each connection (`SSLProtocol.max_size`, which nothing sets), and in a cluster an
orchestrator has two for each Sandbox: its end of the link, and the log that it follows. A subclass of it with a smaller
buffer takes twice what this takes, may lose the last data of an end that closes while something is unread, and lets a
writer continue while megabytes are queued (decision 81; `make bench ONLY=connections`).
"""

import asyncio
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import Any, cast

HANDSHAKE_SECONDS = 10.0
_CLOSE_SECONDS = 5.0
"""How long the other end may take to close what this end has closed."""

_CHUNK = 64 * 1024

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Accept = Callable[[asyncio.StreamReader, asyncio.StreamWriter], None]


class Tls:
    """Runs TLS over any number of connections of one event loop. `limit` is how much of each is read ahead, in bytes.

    What passes goes through memory that all of them share: a buffer made for each piece would leave the heap in holes.
    """

    def __init__(self, context: ssl.SSLContext, limit: int) -> None:
        self._context = context
        self._limit = limit
        self._scratch = _Scratch()

    async def connect(self, connected_socket: socket.socket, name: str) -> Connection:
        """Use a connected socket, which is closed with the connection, for TLS with the server of this `name`.

        Raises:
            OSError: the server hangs up, or it is not the one of this name (`ssl.SSLError`).
        """
        loop = asyncio.get_running_loop()
        connected: asyncio.Future[Connection] = loop.create_future()
        # If the caller has stopped waiting, asyncio would log the exception as never retrieved.
        connected.add_done_callback(lambda future: future.cancelled() or future.exception())

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if not connected.done():
                connected.set_result((reader, writer))

        def failed(error: OSError) -> None:
            if not connected.done():
                connected.set_exception(error)

        transport, _ = await loop.create_connection(lambda: self._protocol(accept, failed, name), sock=connected_socket)
        try:
            return await connected
        except BaseException:
            transport.abort()
            raise

    async def serve(self, accept: Accept, listener: socket.socket) -> asyncio.Server:
        """Hand every connection to `accept` once its handshake is done; one that never is, is closed."""
        loop = asyncio.get_running_loop()
        return await loop.create_server(lambda: self._protocol(accept, lambda _: None), sock=listener)

    def _protocol(self, accept: Accept, failed: Callable[[OSError], None], name: str | None = None) -> "_Protocol":
        state = _State(self._context, name)
        return _Protocol(state, self._scratch, _streams(accept, self._limit), failed)


def _streams(accept: Accept, limit: int) -> asyncio.StreamReaderProtocol:
    return asyncio.StreamReaderProtocol(asyncio.StreamReader(limit), accept)


class _Scratch:
    """Memory for what is on its way, from the socket and out of TLS: taken out before anything else is put in."""

    def __init__(self) -> None:
        self.received = memoryview(bytearray(_CHUNK))
        self.plain = memoryview(bytearray(_CHUNK))


class _State:
    """OpenSSL's state of one connection, between what was received and what will be sent.

    Without a `name` this end is the server.
    """

    def __init__(self, context: ssl.SSLContext, name: str | None) -> None:
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, name is None, name)


class _Protocol(asyncio.BufferedProtocol, asyncio.Transport):
    """A protocol towards the socket and a transport towards `inner`.

    After the handshake it reports the connection to `inner`; if the handshake fails, it calls `failed` with the reason.
    """

    _socket: asyncio.Transport

    def __init__(
        self, state: _State, scratch: _Scratch, inner: asyncio.Protocol, failed: Callable[[OSError], None]
    ) -> None:
        super().__init__()
        self._state = state
        self._scratch = scratch
        self._inner = inner
        self._failed = failed
        self._is_established = False
        self._closing = False
        self._error: OSError | None = None
        self._timer: asyncio.TimerHandle | None = None

    # Towards the socket.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._socket = cast("asyncio.Transport", transport)
        self._timer = asyncio.get_running_loop().call_later(HANDSHAKE_SECONDS, self._give_up)
        self._handshake()

    def get_buffer(self, sizehint: int) -> memoryview:
        del sizehint
        return self._scratch.received

    def buffer_updated(self, nbytes: int) -> None:
        if self._closing:
            return
        self._state.incoming.write(self._scratch.received[:nbytes])
        if not self._is_established:
            self._handshake()
        if self._is_established:
            self._read()

    def connection_lost(self, exc: Exception | None) -> None:
        self._closing = True
        if self._timer is not None:
            self._timer.cancel()
        if self._is_established:
            self._inner.connection_lost(self._error or exc)
        else:
            reason = exc if isinstance(exc, OSError) else ConnectionResetError("it hung up during the TLS handshake")
            self._failed(self._error or reason)

    def pause_writing(self) -> None:
        if self._is_established:
            self._inner.pause_writing()

    def resume_writing(self) -> None:
        if self._is_established:
            self._inner.resume_writing()

    def _handshake(self) -> None:
        try:
            self._state.tls.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
            return
        except ssl.SSLError as error:
            self._break(error)
            return
        self._flush()
        if self._timer is not None:
            self._timer.cancel()
        self._is_established = True
        self._inner.connection_made(self)

    def _read(self) -> None:
        try:
            while not self._closing:
                # With a buffer it returns a size, although typeshed declares another type.
                size = cast("int", self._state.tls.read(_CHUNK, self._scratch.plain))
                if not size:
                    # Its end is the end of both directions.
                    self._inner.eof_received()
                    self.close()
                    return
                self._inner.data_received(bytes(self._scratch.plain[:size]))
        except ssl.SSLWantReadError:
            self._flush()
        except ssl.SSLError as error:
            self._break(error)

    def _flush(self) -> None:
        if self._state.outgoing.pending:
            self._socket.write(self._state.outgoing.read())

    def _break(self, error: OSError) -> None:
        """Send the pending alert, close, and keep the error for the reader."""
        self._error = self._error or error
        self._flush()
        self._closing = True
        self._socket.close()

    def _give_up(self) -> None:
        self._error = TimeoutError(f"the TLS handshake took longer than {HANDSHAKE_SECONDS:.0f} s")
        self._socket.abort()

    # Towards the reader and writer.

    def write(self, data: bytes | bytearray | memoryview) -> None:
        left = memoryview(data)
        try:
            while left and not self._closing:
                left = left[self._state.tls.write(left) :]
        except ssl.SSLError as error:
            self._break(error)
        self._flush()

    def can_write_eof(self) -> bool:
        return False

    def close(self) -> None:
        """Send close_notify and wait for the other end's: if closed at once, data it has not read yet might be lost."""
        if self._closing:
            return
        self._closing = True
        with suppress(ssl.SSLError):
            self._state.tls.unwrap()
        self._flush()
        if self._socket.is_closing():
            return
        try:
            self._socket.write_eof()
        except OSError:
            # The other end has reset the connection.
            self._socket.abort()
            return
        self._socket.resume_reading()
        self._timer = asyncio.get_running_loop().call_later(_CLOSE_SECONDS, self._socket.abort)

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
        own = {"ssl_object": self._state.tls, "sslcontext": self._state.tls.context}
        return own.get(name) or self._socket.get_extra_info(name, default)
