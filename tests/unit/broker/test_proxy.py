"""Tunnels over real sockets: a server on loopback under a name that the test's own resolver knows."""

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from orchestrator.broker.egress import Access, Wanted
from orchestrator.broker.proxy import Network, Traffic, resolve
from orchestrator.wire.link import Generated, Tunnel
from tests.support.broker_world import World, generate
from tests.support.guest import SECONDS, Guest

HOST = "api.example.com"


def anywhere(_: str) -> None:
    """An address policy that refuses nothing."""


@asynccontextmanager
async def server(*, greeting: bytes = b"") -> AsyncIterator[int]:
    """Echo what arrives until the other side is done, then say `bye`; give the port."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(greeting)
        while chunk := await reader.read(65536):
            writer.write(chunk)
            await writer.drain()
        writer.write(b"bye")
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(echo, "127.0.0.1", 0) as listening:
        yield listening.sockets[0].getsockname()[1]


def known(*addresses: tuple[str, int]) -> Network:
    """A network where every name has these addresses and all may be reached."""

    async def lookup(_host: str, _port: int) -> Sequence[tuple[str, int]]:
        return addresses

    return Network(resolve=lookup, refusal=anywhere)


def tunnel(key: str, host: str = HOST) -> Tunnel:
    """A request for a connection."""
    return Tunnel(session_key=key, credential="credential", host=host, port=443)


async def test_bytes_pass_both_ways_and_either_end_may_be_done_first(world: World) -> None:
    """A half-closed connection still carries what comes back, and bytes are counted."""
    sent = b"x" * 3_000_000
    async with server() as port:
        world.network = known(("127.0.0.1", port))
        async with world.running() as (session, guest, key):
            async with await Guest.connect(world.state) as skill:
                assert await skill.open(tunnel(key)) is None

                async def write() -> None:
                    skill.writer.write(sent)
                    await skill.writer.drain()
                    skill.writer.write_eof()

                async with asyncio.TaskGroup() as both:
                    both.create_task(write())
                    received = both.create_task(skill.ended())
            assert received.result() == sent + b"bye"
            # The link is served by the same loop after the tunnel has been accounted for.
            assert isinstance(await guest.ask(generate()), Generated)
            assert session.traffic == Traffic(len(sent), len(sent) + 3)
    assert world.accesses == [Access("run", "web", HOST, 443, allowed=True)]


async def test_next_address_is_tried(world: World) -> None:
    """A name whose first address does not answer is reached at its second."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        closed = taken.getsockname()[1]
    async with server(greeting=b"hello") as port:
        world.network = known(("127.0.0.1", closed), ("127.0.0.1", port))
        async with world.running() as (_, _, key), await Guest.connect(world.state) as skill:
            assert await skill.open(tunnel(key)) is None
            skill.writer.write_eof()
            assert await skill.ended() == b"hellobye"


async def refused(world: World, host: str = HOST) -> str | None:
    """Ask for a host; give the refusal, which is also what was reported."""
    async with world.running() as (_, _, key), await Guest.connect(world.state) as skill:
        reason = await skill.open(tunnel(key, host))
        assert await skill.ended() == b""
    assert world.accesses == [Access("run", "web", host, 443, allowed=False, reason=reason)]
    return reason


async def test_e11_private_addresses_are_refused_by_default(world: World) -> None:
    """A declared name that leads to loopback or a private network is not connected to."""
    world.network = Network(resolve=known(("127.0.0.1", 443), ("10.0.0.8", 443)).resolve)
    reason = "127.0.0.1 is loopback, 10.0.0.8 is a private network"
    assert await refused(world) == f"{HOST} leads to no address that may be reached: {reason}"


async def test_only_the_public_addresses_of_a_name_are_used(world: World) -> None:
    """An address that is refused is skipped, not tried."""
    async with server() as port:
        lookup = known(("10.0.0.8", 443), ("127.0.0.1", port)).resolve
        world.network = Network(resolve=lookup, refusal=lambda ip: "private" if ip.startswith("10.") else None)
        async with world.running() as (_, _, key), await Guest.connect(world.state) as skill:
            async with asyncio.timeout(SECONDS):
                assert await skill.open(tunnel(key)) is None


async def test_undeclared_host_is_refused_without_being_resolved(world: World) -> None:
    """DNS is no way out for a host that nobody declared."""

    async def never(host: str, _port: int) -> Sequence[tuple[str, int]]:
        pytest.fail(f"{host} was looked up")

    world.network = Network(resolve=never)
    assert await refused(world, "secret.attacker.net") == (
        'secret.attacker.net is not declared; add "secret.attacker.net" to '
        'experts."coach".skills."web".allowedDomains, or pass --allow-domain web=secret.attacker.net'
    )


@pytest.mark.parametrize("yes", [True, False])
async def test_a_host_that_nobody_declared_is_asked_about_first(world: World, *, yes: bool) -> None:
    """While somebody thinks the connection waits; a yes is for this host and this skill alone."""
    asked: list[Wanted] = []

    async def consent(wanted: Wanted) -> bool:
        asked.append(wanted)
        return yes

    async with server(greeting=b"hello") as port:
        world.network = replace(known(("127.0.0.1", port)), consent=consent)
        async with world.running() as (_, _, key), await Guest.connect(world.state) as skill:
            refusal = await skill.open(tunnel(key, "other.net"))
            skill.writer.write_eof()
            received = await skill.ended()
    assert asked == [Wanted("coach", "web", "other.net")]
    assert (refusal is None, received) == ((True, b"hellobye") if yes else (False, b""))
    assert [(access.host, access.allowed) for access in world.accesses] == [("other.net", yes)]


async def test_name_that_does_not_resolve_is_refused(world: World) -> None:
    """The system's reason is in the sentence."""

    async def unknown(_host: str, _port: int) -> Sequence[tuple[str, int]]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    world.network = Network(resolve=unknown)
    assert await refused(world) == f"{HOST} cannot be resolved: Name or service not known"


async def test_host_that_does_not_answer_is_refused(world: World) -> None:
    """Nobody listens there."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    world.network = known(("127.0.0.1", port))
    reason = await refused(world)
    assert reason is not None
    assert reason.startswith(f"{HOST} could not be reached: ")
    assert "onnect" in reason


async def test_idle_connection_ends(world: World) -> None:
    """A connection on which nothing moves is closed."""
    async with server() as port:
        net = known(("127.0.0.1", port))
        world.network = Network(net.resolve, net.refusal, idle_seconds=0.05)
        async with world.running() as (_, _, key), await Guest.connect(world.state) as skill:
            assert await skill.open(tunnel(key)) is None
            assert await skill.ended() == b""


async def test_busy_connection_lives_on(world: World) -> None:
    """Idle time counts from the last byte, not from the start."""
    idle = 0.1
    async with server() as port:
        net = known(("127.0.0.1", port))
        world.network = Network(net.resolve, net.refusal, idle_seconds=idle)
        async with world.running() as (_, _, key), await Guest.connect(world.state) as skill:
            assert await skill.open(tunnel(key)) is None
            clock = asyncio.get_running_loop().time
            until = clock() + 2 * idle
            while clock() < until:
                skill.writer.write(b"x")
                assert await skill.reader.readexactly(1) == b"x"


async def test_revoking_ends_tunnels(world: World) -> None:
    """When the Run is over its open connections are too."""
    async with server() as port:
        world.network = known(("127.0.0.1", port))
        async with world.running() as (session, _, key), await Guest.connect(world.state) as skill:
            assert await skill.open(tunnel(key)) is None
            session.revoke()
            assert await skill.ended() == b""


async def test_system_resolver() -> None:
    """A name becomes addresses with the port to use, each once."""
    assert ("127.0.0.1", 443) in await resolve("localhost", 443)
