"""How a connection to a server is made: through a unix socket, TCP, TLS or a proxy."""

import asyncio
import socket
import ssl
import sys
from typing import TYPE_CHECKING

from orchestrator.http.address import Address
from orchestrator.http.connection import Connection
from orchestrator.http.dial import dial
from orchestrator.http.errors import ConnectionBrokenError, StatusError

if TYPE_CHECKING:
    # An engine's unix socket needs neither, and every start waits for this module.
    from orchestrator.http.proxies import Proxy
    from orchestrator.tls import Tls

_CONNECT_SECONDS = 5.0

_AHEAD_BYTES = 64 * 1024
"""How much of each connection is read ahead."""

if sys.platform == "darwin":
    _KEEPS_IDLE = socket.TCP_KEEPALIVE  # its name there
else:
    _KEEPS_IDLE = socket.TCP_KEEPIDLE

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Connector:
    """Connects to one server.

    `context` sets which certificates of a server are trusted: None means those of the authorities that this machine
    trusts, or of those that SSL_CERT_FILE and SSL_CERT_DIR name. `server_name` is the name that the certificate must
    have if it is not the address's host. `seconds` is how long it may take in all: TCP, the proxy, TLS; None leaves the
    limit to the caller.
    """

    def __init__(
        self,
        address: Address,
        context: ssl.SSLContext | None = None,
        server_name: str | None = None,
        proxy: "Proxy | None" = None,
        seconds: float | None = _CONNECT_SECONDS,
    ) -> None:
        self.address = address
        self._context = context
        self._server_name = server_name
        self._proxy = proxy
        self._seconds = seconds
        self._tls: Tls | None = None

    async def connect(self) -> Connection:
        """Connect.

        Raises:
            ConnectionBrokenError: there is no connection; the request was not sent.
        """
        try:
            async with asyncio.timeout(self._seconds):
                return await self._connected()
        except OSError as error:
            message = f"no connection to {self.address}"
            raise ConnectionBrokenError(message, answered=False, sent=False) from error

    async def _connected(self) -> Connection:
        address, headers = self.address, {"Host": self.address.authority}
        if address.is_socket:
            return Connection(*await asyncio.open_unix_connection(address.path, limit=_AHEAD_BYTES), headers=headers)
        if self._proxy is None:
            reader, writer = await self._direct()
        elif address.is_secure:
            reader, writer = await self._tunnelled(self._proxy)
        else:
            # A proxy takes the whole URL where a server takes its path.
            reader, writer = await self._to_proxy(self._proxy)
            return Connection(
                reader, writer, f"http://{address.authority}{address.path}", headers | self._proxy.headers
            )
        return Connection(reader, writer, address.path, headers)

    async def _direct(self) -> Streams:
        if not self.address.is_secure:
            return await _open(self.address.host, self.address.port)
        if self._tls is None:
            from orchestrator.tls import Tls  # noqa: PLC0415 - see above

            self._tls = Tls(self._trust(), _AHEAD_BYTES)
        connection = await dial(self.address.host, self.address.port)
        reader, writer = await self._tls.connect(connection, self._name())
        _keep_alive(writer)
        return reader, writer

    async def _to_proxy(self, proxy: "Proxy") -> Streams:
        reader, writer = await _open(proxy.host, proxy.port)
        if proxy.is_secure:
            try:
                await writer.start_tls(self._trust(), server_hostname=proxy.host)
            except BaseException:
                writer.transport.abort()
                raise
        return reader, writer

    async def _tunnelled(self, proxy: "Proxy") -> Streams:
        reader, writer = await self._to_proxy(proxy)
        connection = Connection(reader, writer)
        try:
            await connection.tunnel(f"{_bracketed(self.address.host)}:{self.address.port}", proxy.headers)
            await writer.start_tls(self._trust(), server_hostname=self._name())
        except StatusError as error:
            connection.close()
            message = f"the proxy {proxy} does not connect to {self.address} ({error.status}: {error})"
            raise ConnectionBrokenError(message, answered=True, sent=False) from error
        except ConnectionBrokenError as error:
            connection.close()
            message = f"the proxy {proxy} does not connect to {self.address} ({error})"
            raise ConnectionBrokenError(message, answered=error.answered, sent=False) from error
        except BaseException:
            connection.close()
            raise
        return reader, writer

    def _trust(self) -> ssl.SSLContext:
        self._context = self._context or ssl.create_default_context()
        return self._context

    def _name(self) -> str:
        return self._server_name or self.address.host


async def _open(host: str, port: int) -> Streams:
    reader, writer = await asyncio.open_connection(sock=await dial(host, port), limit=_AHEAD_BYTES)
    _keep_alive(writer)
    return reader, writer


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _keep_alive(writer: asyncio.StreamWriter) -> None:
    """Have the system notice a server that is gone without a word: a watch would wait for ever."""
    connection: socket.socket = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in ((_KEEPS_IDLE, 30), (socket.TCP_KEEPINTVL, 10), (socket.TCP_KEEPCNT, 3)):
        connection.setsockopt(socket.IPPROTO_TCP, option, value)
