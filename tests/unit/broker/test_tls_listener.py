"""The one port of a job's broker, with real TLS."""

import asyncio
import hashlib
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import pytest

from orchestrator.broker.server import Broker
from orchestrator.broker.session import Session
from orchestrator.broker.tls_listener import TlsListener, open_tls_listener, server_context
from orchestrator.egress.relay import Meter, relay
from orchestrator.errors import BackendUnavailableError, WireError
from orchestrator.runtime.isolation import Target
from orchestrator.runtime.tls_transport import TlsTransport
from orchestrator.runtime.transport import Connection, NotAdmittedError
from orchestrator.sandbox.api import AuthenticationError, BrokerIngress, PodIdentity, User
from orchestrator.sandbox.authority import EgressLimits
from orchestrator.sandbox.frame_stream import FrameStream
from orchestrator.wire.frames import Assigned, Attach, Reattach
from tests.support.broker_fixture import RUN, BrokerFixture
from tests.support.link_client import SECONDS, Guest
from tests.support.log_lines import collect_log

KEY = b"k" * 32
USER = User(65532, 65532)
HERE = "127.0.0.1"
FAR = "192.0.2.99"
"""An address of no machine here: connections from this machine are not counted as this Pod's."""


@dataclass
class Entered:
    """A listener and its clients."""

    world: BrokerFixture
    listener: TlsListener
    broker: Broker
    notes: list[str] = field(default_factory=list)

    def transport(self, bearer: str = "one") -> TlsTransport:
        """Return the connection method of the Pod with this token."""
        path = self.world.directory / f"token-{bearer}"
        path.write_text(f"{bearer}\n")
        address = self.listener.address
        return TlsTransport(Target(address.port, address.hosts), address.pin, path)

    @asynccontextmanager
    async def guest(self, bearer: str = "one") -> AsyncIterator[Guest]:
        """Connect to the listener's port."""
        async with Guest(*await self.transport(bearer).connect()) as guest:
            yield guest

    async def reach_forbidden(self) -> None:
        """Connect to the forbidden port, which no Sandbox can reach."""
        _, writer = await asyncio.open_connection(HERE, self.listener.address.forbidden)
        writer.transport.abort()
        # A later connection is accepted only after this one.
        reader, writer = await asyncio.open_connection(HERE, self.listener.address.forbidden)
        await reader.read()
        writer.transport.abort()


PODS: Mapping[str, PodIdentity] = {
    "one": PodIdentity("s1", "uid-1", frozenset({FAR})),
    "near": PodIdentity("s1", "uid-1", frozenset({HERE, "::1"})),
    "again": PodIdentity("s1", "uid-2", frozenset({FAR})),
    "other": PodIdentity("s2", "uid-3", frozenset({FAR})),
}


async def identify(token: str) -> PodIdentity:
    """Return the owner of a known token; refuse others."""
    if token == "slow":
        message = "the cluster does not say"
        raise WireError(message)
    if token not in PODS:
        message = "the token is not valid"
        raise AuthenticationError(message)
    return PODS[token]


ENTRANCE = BrokerIngress((HERE,), 0, 0, identify)


@asynccontextmanager
async def entered(world: BrokerFixture, entrance: BrokerIngress = ENTRANCE, key: bytes = KEY) -> AsyncIterator[Entered]:
    """A broker behind a listener."""
    notes: list[str] = []
    with collect_log(details=notes):
        async with (
            asyncio.timeout(4 * SECONDS),
            open_tls_listener(entrance, key, world.directory / "ports") as listener,
            Broker(world.provider, world.books.run_records, world.accesses.append, world.network, listener) as broker,
        ):
            yield Entered(world, listener, broker, notes)


async def attach(guest: Guest, session: Session, world: BrokerFixture) -> Assigned:
    """Attach, and receive the Run."""
    guest.send(Attach())
    await session.ready()
    await session.assign(RUN, world.authority)
    return await guest.read(Assigned)


async def test_a_pod_comes_in_by_its_token_and_works_as_over_a_socket(world: BrokerFixture) -> None:
    """The same frames follow as on a socket; on a new connection it reattaches with its key."""
    async with entered(world) as here, here.broker.listen("s1", world.state, USER) as session:
        async with here.guest() as guest:
            assigned = await attach(guest, session, world)
        assert assigned.run == RUN
        async with here.guest() as guest:
            assert await guest.open(Reattach(session_key=assigned.session_key)) is None
    assert here.notes == []


async def test_a_connection_without_our_token_gets_an_error(world: BrokerFixture) -> None:
    """The client gets the reason, and the refusal is logged."""
    async with entered(world) as here, here.broker.listen("s1", world.state, USER):
        with pytest.raises(NotAdmittedError, match="the token is not valid"):
            await here.transport("stolen").connect()
    assert here.notes == [f"a connection from ::ffff:{HERE} was refused: the token is not valid"]


@pytest.mark.parametrize("token", ["other", "slow"])
async def test_a_sandbox_that_is_not_known_yet_may_connect_again(world: BrokerFixture, token: str) -> None:
    """A Sandbox that is not expected, or that the cluster cannot verify now, is disconnected without an answer."""
    async with entered(world) as here, here.broker.listen("s1", world.state, USER):
        with pytest.raises(asyncio.IncompleteReadError):
            await here.transport(token).connect()


async def test_a_second_pod_of_a_sandbox_is_refused(world: BrokerFixture) -> None:
    """Kubernetes may start a Pod twice; the first to connect is the Sandbox."""
    async with entered(world) as here, here.broker.listen("s1", world.state, USER) as session, here.guest() as guest:
        guest.send(Attach())
        await session.ready()
        with pytest.raises(NotAdmittedError, match="another Pod has come as Sandbox s1 before"):
            await here.transport("again").connect()


async def test_a_token_is_used_once_to_get_a_run(world: BrokerFixture) -> None:
    """Another process of the Pod with the token finds the Sandbox attached."""
    async with entered(world) as here, here.broker.listen("s1", world.state, USER) as session, here.guest() as guest:
        await attach(guest, session, world)
        async with here.guest() as thief:
            assert await thief.open(Attach()) == "this Sandbox is attached already"


async def test_a_sandbox_that_lost_its_connection_before_its_run_attaches_again(world: BrokerFixture) -> None:
    """A Sandbox without a Run may attach again: a network may drop an idle connection."""
    async with (
        entered(world) as here,
        here.broker.listen("s1", world.state, USER) as session,
        here.guest() as lost,
        here.guest() as guest,
    ):
        lost.send(Attach())
        await session.ready()
        guest.send(Attach())
        assert await lost.ended() == b""
        await session.assign(RUN, world.authority)
        assert (await guest.read(Assigned)).run == RUN


async def test_only_the_broker_is_trusted(world: BrokerFixture) -> None:
    """A certificate other than the job's ends the connection before any data is sent."""
    async with entered(world) as here, here.broker.listen("s1", world.state, USER):
        transport = replace(here.transport(), pin=hashlib.sha256(b"another").hexdigest())
        with pytest.raises(NotAdmittedError, match="has another certificate"):
            await transport.connect()


async def test_the_same_job_has_the_same_certificate_and_ports(world: BrokerFixture) -> None:
    """An orchestrator that resumes the job uses the same ports and certificate; another job's differ."""
    async with entered(world) as first:
        address = first.listener.address
    async with entered(world) as second:
        assert second.listener.address == address
    async with entered(world, key=b"l" * 32) as third:
        assert third.listener.address.pin != address.pin


async def test_ports_that_were_taken_are_replaced(world: BrokerFixture) -> None:
    """The broker uses other ports and logs that running Sandboxes will not find it."""
    async with entered(world) as first, entered(world, key=b"l" * 32) as second:
        assert first.listener.address.port != second.listener.address.port
        assert "are taken" in second.notes[0]


async def test_a_requested_port_must_be_free(world: BrokerFixture) -> None:
    """Requested ports are never replaced: behind a Service they cannot change."""
    async with entered(world) as first:
        taken = replace(ENTRANCE, port=first.listener.address.port, forbidden=first.listener.address.forbidden)
        with pytest.raises(BackendUnavailableError, match=f"cannot listen at port {taken.port}"):
            async with entered(world, taken):
                pass


async def test_an_address_that_leads_elsewhere_is_refused(world: BrokerFixture) -> None:
    """The check fails before any Sandbox is started."""
    nowhere = replace(ENTRANCE, hosts=("255.255.255.255",))
    with pytest.raises(BackendUnavailableError, match=r"does not answer at 255\.255\.255\.255 port"):
        async with open_tls_listener(nowhere, KEY, world.directory / "ports", patience=0):
            pass


async def test_a_sandbox_with_an_uncounted_connection_to_the_forbidden_port_retries(world: BrokerFixture) -> None:
    """A connection that the Sandbox had not counted yet makes it retry once; it then knows of all."""
    async with entered(world) as here, here.broker.listen("s1", world.state, USER):
        await here.reach_forbidden()
        transport = here.transport("near")
        with pytest.raises(NotAdmittedError, match=f"it reached port {here.listener.address.forbidden}"):
            await transport.connect()
        _, writer = await transport.connect()
        writer.transport.abort()


async def test_a_sandbox_that_reaches_the_forbidden_port_later_is_cut_off(world: BrokerFixture) -> None:
    """The Sandbox is disconnected and not admitted again, and its violation has the reason."""
    async with entered(world) as here, here.broker.listen("s1", world.state, USER) as session:
        async with here.guest("near") as guest:
            await attach(guest, session, world)
            await here.reach_forbidden()
            assert await guest.ended() == b""
        assert session.violation is not None
        assert session.violation.startswith("its network is open")
        with pytest.raises(NotAdmittedError, match="its network is open"):
            await here.transport("near").connect()


async def test_where_no_policy_is_enforced_nothing_is_counted(world: BrokerFixture) -> None:
    """Without enforced policies a Sandbox may have a network."""
    async with (
        entered(world, replace(ENTRANCE, enforced=False)) as here,
        here.broker.listen("s1", world.state, USER) as session,
        here.guest("near") as guest,
    ):
        await here.reach_forbidden()
        await attach(guest, session, world)
        await here.reach_forbidden()
        assert session.violation is None


@pytest.mark.parametrize("said", [b"", b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 64, (1 << 20).to_bytes(4)])
async def test_a_client_that_sends_something_else_is_cut_off(world: BrokerFixture, said: bytes) -> None:
    """Invalid data is refused before it has cost the host anything."""
    async with entered(world) as here, here.broker.listen("s1", world.state, USER):
        reader, writer = await _raw(here)
        writer.write(said)
        if not said:
            writer.transport.abort()
        else:
            with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
                await reader.readexactly(1)
            writer.transport.abort()


async def _raw(here: Entered) -> Connection:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return await asyncio.open_connection(HERE, here.listener.address.port, ssl=context)


@pytest.mark.parametrize("first", ["outside", "inside"])
async def test_a_tunnel_over_tls_ends_with_either_end(first: str) -> None:
    """In TLS one direction cannot end alone: earlier data arrives, and then both directions end."""
    over = asyncio.Event()

    async def far(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.readexactly(5) == b"hello"
        writer.write(b"answer")
        if first == "inside":
            await reader.read()
        writer.close()

    async def near(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        outside = FrameStream(*await asyncio.open_connection(HERE, far_port))
        await relay(FrameStream(reader, writer), outside, Meter(EgressLimits()))
        await outside.close()
        over.set()

    context, _ = server_context(KEY)
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    async with (
        asyncio.timeout(SECONDS),
        await asyncio.start_server(far, HERE, 0) as far_server,
        await asyncio.start_server(near, HERE, 0, ssl=context) as near_server,
    ):
        far_port, near_port = (server.sockets[0].getsockname()[1] for server in (far_server, near_server))
        reader, writer = await asyncio.open_connection(HERE, near_port, ssl=trusting)
        writer.write(b"hello")
        assert await reader.readexactly(6) == b"answer"
        if first == "inside":
            writer.close()
        else:
            assert await reader.read() == b""
        await over.wait()
        writer.transport.abort()
