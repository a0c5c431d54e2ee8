"""The way to a broker over a network: TLS to whoever has the job's certificate, once nothing else is within reach."""

import asyncio
import hashlib
import ssl
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.runtime.isolation import Target, asked_for_names, pass_through, stay_closed
from orchestrator.runtime.way import Connection, NotAdmittedError
from orchestrator.wire import link as wire
from orchestrator.wire.resolvers import name_servers

_CONNECT_SECONDS = 5.0
_BUFFER_BYTES = 1024 * 1024
LOOK_SECONDS = 60.0


@dataclass(slots=True)
class NetworkWay:
    """TLS to one of the addresses of `broker`, whose certificate has the SHA-256 `pin`, in hex.

    Who this is tells the token in the file `token`, which changes. Nothing of `closed` may be within reach: it is tried
    before this way is used, and every `look_seconds` from then on.
    """

    broker: Target
    pin: str
    token: Path
    closed: tuple[Target, ...] = ()
    look_seconds: float = LOOK_SECONDS
    _reached: int = 0
    _context: ssl.SSLContext | None = field(default=None, repr=False)

    async def prove(self) -> None:
        """Try until nothing but the broker is within reach."""
        if self.closed:
            self._reached += await pass_through(self.broker, self.closed)

    async def watch(self) -> None:
        """Try again and again whether anything but the broker is within reach; never return."""
        if not self.closed:
            await asyncio.Event().wait()
        await stay_closed(self.closed, self.look_seconds)

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


def parse(broker: str, pin: str, token: str, closed: str, names: str) -> NetworkWay:
    """Read the options of the runtime that say where its broker is, what must be closed to it, and name servers.

    Name servers that its own resolver would ask must be closed to it too.

    Raises:
        ValueError: they are not as they should be.
    """
    targets = [Target.parse(text) for text in closed.split(";") if text]
    if targets and (servers := (*name_servers(), *(host for host in names.split(",") if host))):
        targets.append(asked_for_names(servers))
    return NetworkWay(Target.parse(broker), pin, Path(token), tuple(targets))
