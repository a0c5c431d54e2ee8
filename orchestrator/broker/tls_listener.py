"""One TLS port for all Sandboxes of a job; each authenticates with a token that its cluster signed.

A second port listens which no Sandbox may reach: one that does has a network, and is not admitted.
"""

import asyncio
import hashlib
import socket
import ssl
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from orchestrator.broker.session import Session
from orchestrator.broker.unix_listener import BUFFER_BYTES
from orchestrator.errors import BackendUnavailableError, WireError
from orchestrator.log import get_logger
from orchestrator.sandbox.api import AuthenticationError, BrokerAddress, BrokerIngress, PodIdentity, User
from orchestrator.sandbox.keys import derive
from orchestrator.tls import Tls
from orchestrator.wire import frames

_log = get_logger(__name__)
_BACKLOG = 256


@dataclass(frozen=True, slots=True)
class Ports:
    """Sockets that listen at `port` and `forbidden`, in both address families where the machine has them."""

    port: int
    forbidden: int
    sockets: tuple[socket.socket, socket.socket]

    @classmethod
    @contextmanager
    def bind(cls, ingress: BrokerIngress, kept: Path) -> "Iterator[Ports]":
        """Bind the ports of `ingress`, else those recorded in `kept`, else any free ones, and record them.

        Raises:
            BackendUnavailableError: a port is taken.
        """
        wanted = (ingress.port, ingress.forbidden)
        known = _read(kept)
        with ExitStack() as stack:
            try:
                sockets = _listen(stack, *(mine or theirs for mine, theirs in zip(wanted, known, strict=True)))
            except OSError as error:
                if any(wanted):
                    message = f"the broker cannot listen at port {wanted[0]} or {wanted[1]}: {error.strerror}"
                    raise BackendUnavailableError(message) from error
                _log.debug("ports %s and %s are taken; running Sandboxes will not find the broker", *known)
                sockets = _listen(stack, 0, 0)
            port, forbidden = (int(each.getsockname()[1]) for each in sockets)
            kept.write_text(f"{port} {forbidden}\n")
            yield cls(port, forbidden, sockets)


def _read(kept: Path) -> tuple[int, int]:
    with suppress(OSError, ValueError):
        port, forbidden = map(int, kept.read_text().split())
        return port, forbidden
    return 0, 0


def _listen(stack: ExitStack, port: int, forbidden: int) -> tuple[socket.socket, socket.socket]:
    return stack.enter_context(_listener(port)), stack.enter_context(_listener(forbidden))


def _listener(port: int) -> socket.socket:
    if socket.has_dualstack_ipv6():
        with suppress(OSError):
            return socket.create_server(("::", port), family=socket.AF_INET6, backlog=_BACKLOG, dualstack_ipv6=True)
    return socket.create_server(("", port), backlog=_BACKLOG)


_NAME = "perstack-broker"
_FROM, _UNTIL = datetime(2020, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC)


def server_context(key: bytes) -> tuple[ssl.SSLContext, str]:
    """Return the TLS context for a broker of the job with this key, and the SHA-256 of its certificate, in hex."""
    # Only jobs whose Sandboxes connect over a network need it.
    from cryptography import x509  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat  # noqa: PLC0415

    private = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(derive(key, "tls")))
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, _NAME)])
    # Ed25519 signatures are deterministic.
    certificate = x509.CertificateBuilder(name, name, private.public_key(), 1, _FROM, _UNTIL).sign(private, None)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    with tempfile.NamedTemporaryFile() as file:  # ssl reads them from a file only
        file.write(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        file.write(certificate.public_bytes(Encoding.PEM))
        file.flush()
        context.load_cert_chain(file.name)
    return context, hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest()


_IDENTITY_BYTES = 16 * 1024
_IDENTITY_SECONDS = 10.0
_UNAUTHENTICATED = 1024
"""Connections at once that have not authenticated yet."""

_ANSWER_SECONDS = 10.0
"""How long a Service may take to route to a Pod that just started."""

_TRY_SECONDS = 0.5

Accept = Callable[[asyncio.StreamReader, asyncio.StreamWriter], None]


@dataclass(slots=True)
class _Registration:
    """A Sandbox that may connect, and the Pod that it connected from."""

    session: Session
    identity: PodIdentity | None = None


class TlsListener:
    """The port of a job's broker; created by `open_tls_listener`."""

    def __init__(self, address: BrokerAddress, ingress: BrokerIngress) -> None:
        self.address = address
        self._ingress = ingress
        self._expected: dict[str, _Registration] = {}
        self._reached: Counter[str] = Counter()
        self._unauthenticated: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def register(self, name: str, state: Path, user: User, session: Session) -> AsyncIterator[None]:
        """Admit the Sandbox of this name: one Pod, once."""
        del state, user
        expected = self._expected[name] = _Registration(session)
        try:
            yield
        finally:
            del self._expected[name]
            for address in expected.identity.addresses if expected.identity else ():
                del self._reached[address]

    def seal(self, state: Path) -> None:
        """Do nothing: this listener has no socket in a state directory."""

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take a connection at the port."""
        if len(self._unauthenticated) >= _UNAUTHENTICATED:
            writer.transport.abort()
            return
        task = asyncio.ensure_future(self._authenticate(reader, writer))
        self._unauthenticated.add(task)
        task.add_done_callback(self._unauthenticated.discard)

    def catch(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take a connection at the forbidden port."""
        address = _plain(writer.get_extra_info("peername")[0])
        writer.transport.abort()
        self._reached[address] += 1
        for name, expected in self._expected.items():
            if self._ingress.enforced and expected.identity is not None and address in expected.identity.addresses:
                _log.debug("Sandbox %s was cut off: %s", name, self._why_open())
                expected.session.expel(self._why_open())

    def forget(self) -> None:
        """Forget which addresses reached the forbidden port so far."""
        self._reached.clear()

    async def close(self) -> None:
        """Close the connections that have not authenticated."""
        for task in self._unauthenticated:
            task.cancel()
        if self._unauthenticated:
            await asyncio.wait(self._unauthenticated)

    async def _authenticate(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_IDENTITY_SECONDS):
                claim = await frames.read_frame(reader, frames.IDENTIFY, _IDENTITY_BYTES)
            expected = await self._expect(claim)
        except AuthenticationError as error:
            _log.debug("a connection from %s was refused: %s", writer.get_extra_info("peername")[0], error)
            writer.write(frames.frame(frames.TunnelReply(refused=str(error))))
            writer.close()
        except (WireError, OSError, asyncio.IncompleteReadError):
            writer.transport.abort()
        except asyncio.CancelledError:
            writer.transport.abort()
            raise
        else:
            writer.write(frames.frame(frames.TunnelReply()))
            expected.session.accept(reader, writer)

    async def _expect(self, claim: frames.Identify) -> _Registration:
        identity = await self._ingress.identify(claim.token)
        expected = self._expected.get(identity.sandbox)
        if expected is None:
            # An orchestrator that is just resuming the job may expect it in a moment.
            message = f"Sandbox {identity.sandbox} is not expected"
            raise WireError(message)
        if expected.session.violation is not None:
            raise AuthenticationError(expected.session.violation)
        if expected.identity is not None and expected.identity.uid != identity.uid:
            message = f"another Pod has come as Sandbox {identity.sandbox} before"
            raise AuthenticationError(message)
        if self._ingress.enforced and sum(self._reached[each] for each in identity.addresses) > claim.reached:
            # The Sandbox could not know of these connections: it must retry, and then knows of all.
            for address in identity.addresses:
                del self._reached[address]
            raise AuthenticationError(self._why_open())
        expected.identity = identity
        return expected

    def _why_open(self) -> str:
        return f"its network is open: it reached port {self.address.forbidden}, which a NetworkPolicy must close to it"


@asynccontextmanager
async def open_tls_listener(
    ingress: BrokerIngress,
    key: bytes,
    kept: Path,
    patience: float = _ANSWER_SECONDS,
) -> AsyncIterator[TlsListener]:
    """Listen for the Sandboxes of the job with this key; its ports are recorded in `kept` and reused from there.

    Raises:
        BackendUnavailableError: no Sandbox could connect: a port is taken, or a host is not this machine's.
    """
    context, pin = server_context(key)
    async with AsyncExitStack() as stack:
        ports = stack.enter_context(Ports.bind(ingress, kept))
        address = BrokerAddress(ingress.hosts, ports.port, ports.forbidden, pin)
        listener = TlsListener(address, ingress)
        stack.push_async_callback(listener.close)
        open_socket, forbidden_socket = ports.sockets
        servers = (
            await Tls(context, BUFFER_BYTES).serve(listener.accept, open_socket),
            await asyncio.start_server(listener.catch, sock=forbidden_socket),
        )
        for server in servers:
            stack.callback(server.close)
        await _check_reachable(address, patience)
        listener.forget()
        yield listener


async def _check_reachable(address: BrokerAddress, patience: float) -> None:
    """Check that both ports answer at every host: then only a policy can make one silent for a Sandbox."""
    for host in address.hosts:
        for port in (address.port, address.forbidden):
            problem = await _connection_error(host, port, patience)
            if problem is not None:
                message = (
                    f"the broker does not answer at {host} port {port} ({problem}), so no Sandbox would reach it; "
                    "name an address of this machine that Pods reach with --broker-address"
                )
                raise BackendUnavailableError(message) from problem


async def _connection_error(host: str, port: int, patience: float) -> OSError | None:
    """Connect until it works and the listener has seen it; after `patience` seconds return the error."""
    clock = asyncio.get_running_loop().time
    until = clock() + patience
    while True:
        try:
            async with asyncio.timeout(_TRY_SECONDS):
                reader, writer = await asyncio.open_connection(host, port)
        except OSError as error:
            if clock() > until:
                return error
            await asyncio.sleep(_TRY_SECONDS)
            continue
        # The forbidden port hangs up; the other one waits for a handshake, which is not sent.
        with suppress(OSError):
            async with asyncio.timeout(_TRY_SECONDS):
                writer.write_eof()
                await reader.read()
        writer.transport.abort()
        return None


def _plain(address: str) -> str:
    """Return an address as a Pod's status has it: a dual-stack socket shows IPv4 wrapped in IPv6."""
    return address.removeprefix("::ffff:") if "." in address else address.partition("%")[0]
