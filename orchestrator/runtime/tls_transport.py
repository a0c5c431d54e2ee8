"""The transport to a broker over a network: TLS pinned to the job's certificate, after the network was verified."""

import asyncio
import hashlib
import ssl
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.runtime.isolation import Target, check_repeatedly, name_server_target, wait_until_isolated
from orchestrator.runtime.transport import Connection, NotAdmittedError
from orchestrator.wire import frames as wire
from orchestrator.wire.name_servers import name_servers

_CONNECT_SECONDS = 5.0
_BUFFER_BYTES = 1024 * 1024
CHECK_SECONDS = 60.0


@dataclass(slots=True)
class TlsTransport:
    """TLS to one of the addresses of `broker`, whose certificate has the SHA-256 `pin`, in hex.

    The file `token`, whose content changes, holds the token that identifies this Sandbox. Nothing in `closed` may be
    reachable: this is checked before the first use, and then every `check_seconds`.
    """

    broker: Target
    pin: str
    token: Path
    closed: tuple[Target, ...] = ()
    check_seconds: float = CHECK_SECONDS
    _reached: int = 0
    _context: ssl.SSLContext | None = field(default=None, repr=False)

    async def verify_isolation(self) -> None:
        """Retry until only the broker can be reached."""
        if self.closed:
            self._reached += await wait_until_isolated(self.broker, self.closed)

    async def verify_isolation_forever(self) -> None:
        """Check every `check_seconds` that only the broker can be reached; never return."""
        if not self.closed:
            await asyncio.Event().wait()
        await check_repeatedly(self.closed, self.check_seconds)

    async def connect(self) -> Connection:
        """Open a connection, verify the broker's certificate, and identify this Sandbox."""
        reader, writer = await self._open_tls()
        try:
            await self._verify_certificate(writer)
            writer.write(wire.frame(wire.Identify(token=self._read_token(), reached=self._reached)))
            self._require_admission(await wire.read_frame(reader, wire.OPENED))
        except BaseException:
            writer.transport.abort()
            raise
        return reader, writer

    def _require_admission(self, opened: wire.TunnelReply) -> None:
        if opened.refused is not None:
            # The broker restarts its own count, so this one must start again too.
            self._reached = 0
            raise NotAdmittedError(opened.refused)

    def close(self) -> None:
        """Do nothing: each connection is closed by its caller."""

    async def _open_tls(self) -> Connection:
        if self._context is None:
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            self._context.minimum_version = ssl.TLSVersion.TLSv1_3
            # A broker's certificate is not signed by an authority: it is verified by its digest.
            self._context.check_hostname, self._context.verify_mode = False, ssl.CERT_NONE
        problem: OSError = OSError("the broker has no address")
        for host in self.broker.hosts:
            try:
                async with asyncio.timeout(_CONNECT_SECONDS):
                    return await asyncio.open_connection(host, self.broker.port, ssl=self._context, limit=_BUFFER_BYTES)
            except OSError as error:
                problem = error
        raise problem

    async def _verify_certificate(self, writer: asyncio.StreamWriter) -> None:
        certificate = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        if certificate is None or hashlib.sha256(certificate).hexdigest() != self.pin:
            message = "the server at the broker's address has another certificate"
            raise NotAdmittedError(message)

    def _read_token(self) -> str:
        return self.token.read_text(encoding="ascii").strip()


def parse(broker: str, pin: str, token: str, closed: str, names: str) -> TlsTransport:
    """Parse the runtime's options for the broker's address, the targets that must be closed, and name servers.

    The name servers of the Sandbox's own resolver must be closed too.

    Raises:
        ValueError: an option is not valid.
    """
    targets = [Target.parse(text) for text in closed.split(";") if text]
    if targets and (servers := (*name_servers(), *(host for host in names.split(",") if host))):
        targets.append(name_server_target(servers))
    return TlsTransport(Target.parse(broker), pin, Path(token), tuple(targets))
