"""The one port of a job's broker, against real TLS."""

import asyncio
import hashlib
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import pytest

from orchestrator.broker.authority import EgressLimits
from orchestrator.broker.certificate import server_context
from orchestrator.broker.relay import Meter, relay
from orchestrator.broker.server import Broker
from orchestrator.broker.session import Session
from orchestrator.broker.stream import Stream
from orchestrator.broker.tls_door import TlsDoor, open_door
from orchestrator.errors import BackendUnavailableError, WireError
from orchestrator.runtime.isolation import Target
from orchestrator.runtime.network_way import NetworkWay
from orchestrator.runtime.way import Connection, NotAdmittedError
from orchestrator.sandbox import Bearer, Entrance, StrangerError, User
from orchestrator.wire.link import Assigned, Attach, Reattach
from tests.support.broker_world import RUN, World
from tests.support.guest import SECONDS, Guest

KEY = b"k" * 32
USER = User(65532, 65532)
HERE = "127.0.0.1"
FAR = "192.0.2.99"
"""Nobody here: what comes from this machine is not counted as this Pod's."""


@dataclass
class Entered:
    """A door, and how to come to it."""

    world: World
    door: TlsDoor
    broker: Broker
    notes: list[str] = field(default_factory=list)

    def way(self, bearer: str = "one") -> NetworkWay:
        """The way of the Pod that has this token."""
        path = self.world.directory / f"token-{bearer}"
        path.write_text(f"{bearer}\n")
        address = self.door.address
        return NetworkWay(Target(address.port, address.hosts), address.pin, path)

    @asynccontextmanager
    async def guest(self, bearer: str = "one") -> AsyncIterator[Guest]:
        """Come in by the front door."""
        async with Guest(*await self.way(bearer).dial()) as guest:
            yield guest

    async def reach_forbidden(self) -> None:
        """Do what no Sandbox can."""
        _, writer = await asyncio.open_connection(HERE, self.door.address.forbidden)
        writer.transport.abort()
        # Whatever connects after it is accepted after it.
        reader, writer = await asyncio.open_connection(HERE, self.door.address.forbidden)
        await reader.read()
        writer.transport.abort()


PODS: Mapping[str, Bearer] = {
    "one": Bearer("s1", "uid-1", frozenset({FAR})),
    "near": Bearer("s1", "uid-1", frozenset({HERE, "::1"})),
    "again": Bearer("s1", "uid-2", frozenset({FAR})),
    "other": Bearer("s2", "uid-3", frozenset({FAR})),
}


async def identify(token: str) -> Bearer:
    """Know these tokens and no other."""
    if token == "slow":
        message = "the cluster does not say"
        raise WireError(message)
    if token not in PODS:
        message = "the token is not valid"
        raise StrangerError(message)
    return PODS[token]


ENTRANCE = Entrance((HERE,), 0, 0, identify)


@asynccontextmanager
async def entered(world: World, entrance: Entrance = ENTRANCE, key: bytes = KEY) -> AsyncIterator[Entered]:
    """A broker behind a door."""
    notes: list[str] = []
    async with (
        asyncio.timeout(4 * SECONDS),
        open_door(entrance, key, world.directory / "ports", notes.append) as door,
        Broker(world.provider, world.books.ledger, world.accesses.append, world.network, door) as broker,
    ):
        yield Entered(world, door, broker, notes)


async def attach(guest: Guest, session: Session, world: World) -> Assigned:
    """Attach, and be given the Run."""
    guest.send(Attach())
    await session.ready()
    await session.assign(RUN, world.authority)
    return await guest.read(Assigned)


async def test_a_pod_comes_in_by_its_token_and_works_as_over_a_socket(world: World) -> None:
    """The same frames follow; over another connection it comes back with its key."""
    async with entered(world) as here, here.broker.listen("s1", world.state, USER) as session:
        async with here.guest() as guest:
            assigned = await attach(guest, session, world)
        assert assigned.run == RUN
        async with here.guest() as guest:
            assert await guest.open(Reattach(session_key=assigned.session_key)) is None
    assert here.notes == []


async def test_who_has_no_token_of_ours_is_told_so(world: World) -> None:
    """And a remark is made of it."""
    async with entered(world) as here, here.broker.listen("s1", world.state, USER):
        with pytest.raises(NotAdmittedError, match="the token is not valid"):
            await here.way("stolen").dial()
    assert here.notes == [f"a connection from ::ffff:{HERE} was refused: the token is not valid"]


@pytest.mark.parametrize("token", ["other", "slow"])
async def test_who_is_not_known_yet_may_come_again(world: World, token: str) -> None:
    """A Sandbox that is not expected, or of which the cluster says nothing now, is cut off without an answer."""
    async with entered(world) as here, here.broker.listen("s1", world.state, USER):
        with pytest.raises(asyncio.IncompleteReadError):
            await here.way(token).dial()


async def test_a_second_pod_of_a_sandbox_is_refused(world: World) -> None:
    """Kubernetes may start a Pod twice; the one that came first is the Sandbox."""
    async with entered(world) as here, here.broker.listen("s1", world.state, USER) as session, here.guest() as guest:
        guest.send(Attach())
        await session.ready()
        with pytest.raises(NotAdmittedError, match="another Pod has come as Sandbox s1 before"):
            await here.way("again").dial()


async def test_a_token_is_used_once_to_get_a_run(world: World) -> None:
    """Whoever else in the Pod has it finds the Sandbox attached."""
    async with entered(world) as here, here.broker.listen("s1", world.state, USER) as session, here.guest() as guest:
        await attach(guest, session, world)
        async with here.guest() as thief:
            assert await thief.open(Attach()) == "this Sandbox is attached already"


async def test_who_lost_its_connection_before_its_run_attaches_again(world: World) -> None:
    """A network may drop what was idle for long."""
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


async def test_nobody_but_the_broker_is_believed(world: World) -> None:
    """A certificate that is not the job's ends it before anything is said."""
    async with entered(world) as here, here.broker.listen("s1", world.state, USER):
        way = replace(here.way(), pin=hashlib.sha256(b"another").hexdigest())
        with pytest.raises(NotAdmittedError, match="is not the broker"):
            await way.dial()


async def test_the_same_job_has_the_same_certificate_and_ports(world: World) -> None:
    """An orchestrator that takes it up is found where the first one was; another job's is another."""
    async with entered(world) as first:
        address = first.door.address
    async with entered(world) as second:
        assert second.door.address == address
    async with entered(world, key=b"l" * 32) as third:
        assert third.door.address.pin != address.pin


async def test_ports_that_somebody_took_are_replaced(world: World) -> None:
    """Sandboxes that are still up will not find it; it is said."""
    async with entered(world) as first, entered(world, key=b"l" * 32) as second:
        assert first.door.address.port != second.door.address.port
        assert "are taken" in second.notes[0]


async def test_a_port_that_was_asked_for_must_be_free(world: World) -> None:
    """Behind a Service it cannot be another."""
    async with entered(world) as first:
        taken = replace(ENTRANCE, port=first.door.address.port, forbidden=first.door.address.forbidden)
        with pytest.raises(BackendUnavailableError, match=f"cannot listen at port {taken.port}"):
            async with entered(world, taken):
                pass


async def test_an_address_that_leads_elsewhere_is_refused(world: World) -> None:
    """Before any Sandbox is started that would not find its way."""
    nowhere = replace(ENTRANCE, hosts=("255.255.255.255",))
    with pytest.raises(BackendUnavailableError, match=r"does not answer at 255\.255\.255\.255 port"):
        async with open_door(nowhere, KEY, world.directory / "ports", patience=0):
            pass


async def test_who_reached_the_forbidden_port_unawares_must_try_again(world: World) -> None:
    """An answer may come later than the Sandbox waits for it; it knows how many it got, and the broker all."""
    async with entered(world) as here, here.broker.listen("s1", world.state, USER):
        await here.reach_forbidden()
        way = here.way("near")
        with pytest.raises(NotAdmittedError, match=f"it reached port {here.door.address.forbidden}"):
            await way.dial()
        _, writer = await way.dial()
        writer.transport.abort()


async def test_who_reaches_the_forbidden_port_later_is_cut_off(world: World) -> None:
    """Its policy is not in force any more: it is let in nowhere, and its Run will say why."""
    async with entered(world) as here, here.broker.listen("s1", world.state, USER) as session:
        async with here.guest("near") as guest:
            await attach(guest, session, world)
            await here.reach_forbidden()
            assert await guest.ended() == b""
        assert session.violation is not None
        assert session.violation.startswith("its network is open")
        with pytest.raises(NotAdmittedError, match="its network is open"):
            await here.way("near").dial()


async def test_where_no_policy_is_enforced_nothing_is_counted(world: World) -> None:
    """Who accepts an open network has one."""
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
async def test_who_says_something_else_is_cut_off(world: World, said: bytes) -> None:
    """Before it has cost anything."""
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
    return await asyncio.open_connection(HERE, here.door.address.port, ssl=context)


@pytest.mark.parametrize("first", ["outside", "inside"])
async def test_a_tunnel_over_tls_ends_with_either_end(first: str) -> None:
    """One direction of TLS cannot end alone: what came before the end arrives, and then all of it is over."""
    over = asyncio.Event()

    async def far(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.readexactly(5) == b"hello"
        writer.write(b"answer")
        if first == "inside":
            await reader.read()
        writer.close()

    async def near(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        outside = Stream(*await asyncio.open_connection(HERE, far_port))
        await relay(Stream(reader, writer), outside, Meter(EgressLimits()))
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
