"""The way to a broker over a network: TLS to whoever has the job's certificate, once nothing else is within reach."""

import asyncio
import hashlib
import ssl
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.runtime.isolation import Target, pass_through
from orchestrator.runtime.way import Connection, NotAdmittedError
from orchestrator.wire import link as wire

_CONNECT_SECONDS = 5.0
_BUFFER_BYTES = 1024 * 1024


@dataclass(slots=True)
class NetworkWay:
    """TLS to one of the addresses of `broker`, whose certificate has the SHA-256 `pin`, in hex.

    Who this is tells the token in the file `token`, which changes. Nothing of `closed` may be within reach.
    """

    broker: Target
    pin: str
    token: Path
    closed: tuple[Target, ...] = ()
    _reached: int = 0
    _context: ssl.SSLContext | None = field(default=None, repr=False)

    async def prove(self) -> None:
        """Try until nothing but the broker is within reach."""
        if self.closed:
            self._reached += await pass_through(self.broker, self.closed)

    async def dial(self) -> Connection:
        """Open a connection, see who is there, and say who this is."""
        reader, writer = await self._connect()
        try:
            await self._be_sure(writer)
            writer.write(wire.frame(wire.Identify(token=self._read_token(), reached=self._reached)))
            self._heed(await wire.read_frame(reader, wire.OPENED))
        except BaseException:
            writer.transport.abort()
            raise
        return reader, writer

    def _heed(self, opened: wire.Opened) -> None:
        if opened.refused is not None:
            # It counts anew what it saw; so must we.
            self._reached = 0
            raise NotAdmittedError(opened.refused)

    def close(self) -> None:
        """Do nothing: each connection is closed by who opened it."""

    async def _connect(self) -> Connection:
        if self._context is None:
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            self._context.minimum_version = ssl.TLSVersion.TLSv1_3
            # No authority vouches for a broker: its certificate is known by its digest.
            self._context.check_hostname, self._context.verify_mode = False, ssl.CERT_NONE
        problem: OSError = OSError("the broker has no address")
        for host in self.broker.hosts:
            try:
                async with asyncio.timeout(_CONNECT_SECONDS):
                    return await asyncio.open_connection(host, self.broker.port, ssl=self._context, limit=_BUFFER_BYTES)
            except OSError as error:
                problem = error
        raise problem

    async def _be_sure(self, writer: asyncio.StreamWriter) -> None:
        certificate = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        if certificate is None or hashlib.sha256(certificate).hexdigest() != self.pin:
            message = "whoever answers at the broker's address is not the broker"
            raise NotAdmittedError(message)

    def _read_token(self) -> str:
        return self.token.read_text(encoding="ascii").strip()


def parse(broker: str, pin: str, token: str, closed: str) -> NetworkWay:
    """Read the options of the runtime that say where its broker is and what must be closed to it.

    Raises:
        ValueError: they are not as they should be.
    """
    targets = tuple(Target.parse(text) for text in closed.split(";") if text)
    return NetworkWay(Target.parse(broker), pin, Path(token), targets)
