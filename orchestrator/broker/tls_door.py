"""One port for all Sandboxes of a job, in TLS; each says who it is by a token that its cluster vouches for.

Beside it a second port listens which no Sandbox may reach: whoever does has a network, and is not let in.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from orchestrator.broker.certificate import server_context
from orchestrator.broker.ports import Ports
from orchestrator.broker.session import Session
from orchestrator.broker.socket_door import BUFFER_BYTES
from orchestrator.errors import BackendUnavailableError, WireError
from orchestrator.sandbox import Bearer, BrokerAddress, Entrance, StrangerError, User
from orchestrator.tls import Tls
from orchestrator.wire import link

_IDENTITY_BYTES = 16 * 1024
_IDENTITY_SECONDS = 10.0
_STRANGERS = 1024
"""Connections at once that have not said yet whose they are."""

_ANSWER_SECONDS = 10.0
"""How long a Service may take to lead to a Pod that is just up."""

_TRY_SECONDS = 0.5

Accept = Callable[[asyncio.StreamReader, asyncio.StreamWriter], None]


@dataclass(slots=True)
class _Expected:
    """A Sandbox that may come in, and as which Pod it came."""

    session: Session
    bearer: Bearer | None = None


class TlsDoor:
    """The port of a job's broker; made by `open_door`. `note` takes remarks for a log."""

    def __init__(self, address: BrokerAddress, entrance: Entrance, note: Callable[[str], None]) -> None:
        self.address = address
        self._entrance = entrance
        self._note = note
        self._expected: dict[str, _Expected] = {}
        self._reached: Counter[str] = Counter()
        self._strangers: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def admit(self, name: str, state: Path, user: User, session: Session) -> AsyncIterator[None]:
        """Let in the Sandbox of this name: one Pod, once."""
        del state, user
        expected = self._expected[name] = _Expected(session)
        try:
            yield
        finally:
            del self._expected[name]
            for address in expected.bearer.addresses if expected.bearer else ():
                del self._reached[address]

    def shut(self, state: Path) -> None:
        """Do nothing: there is no other door behind which a Sandbox could find somebody."""

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take a connection at the port."""
        if len(self._strangers) >= _STRANGERS:
            writer.transport.abort()
            return
        task = asyncio.ensure_future(self._welcome(reader, writer))
        self._strangers.add(task)
        task.add_done_callback(self._strangers.discard)

    def catch(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take a connection at the forbidden port."""
        address = _plain(writer.get_extra_info("peername")[0])
        writer.transport.abort()
        self._reached[address] += 1
        for name, expected in self._expected.items():
            if self._entrance.enforced and expected.bearer is not None and address in expected.bearer.addresses:
                self._note(f"Sandbox {name} was cut off: {self._why_open()}")
                expected.session.expel(self._why_open())

    def forget(self) -> None:
        """Forget who reached the forbidden port so far."""
        self._reached.clear()

    async def close(self) -> None:
        """End what has not come in yet."""
        for task in self._strangers:
            task.cancel()
        if self._strangers:
            await asyncio.wait(self._strangers)

    async def _welcome(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_IDENTITY_SECONDS):
                identity = await link.read_frame(reader, link.IDENTIFY, _IDENTITY_BYTES)
            expected = await self._expect(identity)
        except StrangerError as error:
            self._note(f"a connection from {writer.get_extra_info('peername')[0]} was refused: {error}")
            writer.write(link.frame(link.Opened(refused=str(error))))
            writer.close()
        except (WireError, OSError, asyncio.IncompleteReadError):
            writer.transport.abort()
        except asyncio.CancelledError:
            writer.transport.abort()
            raise
        else:
            writer.write(link.frame(link.Opened()))
            expected.session.accept(reader, writer)

    async def _expect(self, identity: link.Identify) -> _Expected:
        bearer = await self._entrance.identify(identity.token)
        expected = self._expected.get(bearer.sandbox)
        if expected is None:
            # An orchestrator that has just taken the job up may expect it in a moment.
            message = f"Sandbox {bearer.sandbox} is not expected"
            raise WireError(message)
        if expected.session.violation is not None:
            raise StrangerError(expected.session.violation)
        if expected.bearer is not None and expected.bearer.uid != bearer.uid:
            message = f"another Pod has come as Sandbox {bearer.sandbox} before"
            raise StrangerError(message)
        if self._entrance.enforced and sum(self._reached[each] for each in bearer.addresses) > identity.reached:
            # What it could not know of: it has to try anew, and then knows all there is.
            for address in bearer.addresses:
                del self._reached[address]
            raise StrangerError(self._why_open())
        expected.bearer = bearer
        return expected

    def _why_open(self) -> str:
        return f"its network is open: it reached port {self.address.forbidden}, which a NetworkPolicy must close to it"


@asynccontextmanager
async def open_door(
    entrance: Entrance,
    key: bytes,
    kept: Path,
    note: Callable[[str], None] = lambda _: None,
    patience: float = _ANSWER_SECONDS,
) -> AsyncIterator[TlsDoor]:
    """Listen for the Sandboxes of the job with this key; its ports are written down in `kept`, and taken from there.

    Raises:
        BackendUnavailableError: nobody could come in: a port is taken, or a host is not this machine's.
    """
    context, pin = server_context(key)
    async with AsyncExitStack() as stack:
        ports = stack.enter_context(Ports.bound(entrance, kept, note))
        address = BrokerAddress(entrance.hosts, ports.port, ports.forbidden, pin)
        door = TlsDoor(address, entrance, note)
        stack.push_async_callback(door.close)
        listener, forbidden = ports.sockets
        servers = (
            await Tls(context, BUFFER_BYTES).serve(door.accept, listener),
            await asyncio.start_server(door.catch, sock=forbidden),
        )
        for server in servers:
            stack.callback(server.close)
        await _prove(address, patience)
        door.forget()
        yield door


async def _prove(address: BrokerAddress, patience: float) -> None:
    """See that both ports answer at every host: what is silent for a Sandbox is silent because of a policy."""
    for host in address.hosts:
        for port in (address.port, address.forbidden):
            problem = await _problem(host, port, patience)
            if problem is not None:
                message = (
                    f"the broker does not answer at {host} port {port} ({problem}), so no Sandbox would reach it; "
                    "name an address of this machine that Pods reach with --broker-address"
                )
                raise BackendUnavailableError(message) from problem


async def _problem(host: str, port: int, patience: float) -> OSError | None:
    """Connect until it works and the connection was taken note of; after `patience` seconds say why it does not."""
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
        # The forbidden port hangs up; the other one waits for a handshake that does not come.
        with suppress(OSError):
            async with asyncio.timeout(_TRY_SECONDS):
                writer.write_eof()
                await reader.read()
        writer.transport.abort()
        return None


def _plain(address: str) -> str:
    """An address as a Pod's status has it: IPv4 comes wrapped in IPv6 at a socket for both."""
    return address.removeprefix("::ffff:") if "." in address else address.partition("%")[0]
