"""Tunnels over real sockets, to a server on loopback under a name that only the test's resolver knows."""

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from orchestrator.egress.client_hello import UNRECOGNIZED_NAME
from orchestrator.egress.policy import EgressDecision, HostRequest
from orchestrator.egress.proxy import EgressNetwork, refused_address, resolve
from orchestrator.sandbox.authority import EgressLimits, SkillHosts
from orchestrator.wire.frames import Generated, Tunnel
from tests.support.broker_fixture import BrokerFixture, generate
from tests.support.client_hello_bytes import message, openssl_hello, records, server_name
from tests.support.link_client import SECONDS, Guest

HOST = "api.example.com"
HELLO = openssl_hello(HOST)


def anywhere(_: str) -> None:
    """Refuse no address."""


@asynccontextmanager
async def server(*, greeting: bytes = b"") -> AsyncIterator[int]:
    """Echo what arrives until the other side is done, then send `bye`; yield the port."""

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


def known(*addresses: tuple[str, int]) -> EgressNetwork:
    """Return a network where every name has these addresses and all are allowed."""

    async def lookup(_host: str, _port: int) -> Sequence[tuple[str, int]]:
        return addresses

    return EgressNetwork(resolve=lookup, refusal=anywhere)


def tunnel(key: str, host: str = HOST) -> Tunnel:
    """Return a request for a connection."""
    return Tunnel(session_key=key, credential="credential", host=host, port=443)


async def greet(skill: Guest) -> None:
    """Send the host name as a TLS client does, and read the echo."""
    skill.writer.write(HELLO)
    async with asyncio.timeout(SECONDS):
        assert await skill.reader.readexactly(len(HELLO)) == HELLO


async def test_bytes_pass_both_ways_and_either_end_may_be_done_first(world: BrokerFixture) -> None:
    """A half-closed connection still carries the other direction, and bytes are counted."""
    sent = b"x" * 3_000_000
    # One byte less each way would close the connection.
    moved = len(HELLO) + len(sent)
    world.allow(egress=EgressLimits(sent=moved, received=moved + 3))
    async with server() as port:
        world.network = known(("127.0.0.1", port))
        async with world.running() as (_, guest, key):
            async with await Guest.connect(world.listener) as skill:
                assert await skill.open(tunnel(key)) is None

                async def write() -> None:
                    skill.writer.write(HELLO + sent)
                    await skill.writer.drain()
                    skill.writer.write_eof()

                async with asyncio.TaskGroup() as both:
                    both.create_task(write())
                    received = both.create_task(skill.ended())
            assert received.result() == HELLO + sent + b"bye"
            # The link is served by the same loop after the tunnel has been accounted for.
            assert isinstance(await guest.ask(generate()), Generated)
    assert world.accesses == [EgressDecision("run", "web", HOST, 443, allowed=True)]


async def test_next_address_is_tried(world: BrokerFixture) -> None:
    """A name whose first address does not answer is reached at its second."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        closed = taken.getsockname()[1]
    async with server(greeting=b"hello") as port:
        world.network = known(("127.0.0.1", closed), ("127.0.0.1", port))
        async with world.running() as (_, _, key), await Guest.connect(world.listener) as skill:
            assert await skill.open(tunnel(key)) is None
            skill.writer.write(HELLO)
            skill.writer.write_eof()
            assert await skill.ended() == b"hello" + HELLO + b"bye"


async def refused(world: BrokerFixture, host: str = HOST) -> str | None:
    """Request a host; return the refusal, which must also be the reported reason."""
    async with world.running() as (_, _, key), await Guest.connect(world.listener) as skill:
        reason = await skill.open(tunnel(key, host))
        assert await skill.ended() == b""
    assert world.accesses == [EgressDecision("run", "web", host, 443, allowed=False, reason=reason)]
    return reason


@pytest.mark.behaviour("E11")
async def test_private_addresses_are_refused_by_default(world: BrokerFixture) -> None:
    """A declared name that leads to loopback or a private network is not connected to."""
    world.network = EgressNetwork(resolve=known(("127.0.0.1", 443), ("10.0.0.8", 443)).resolve)
    reason = "127.0.0.1 is loopback, 10.0.0.8 is a private network"
    remedy = "nothing in perstack.toml allows those"
    assert await refused(world) == f"{HOST} leads to no address that may be reached: {reason}; {remedy}"


async def test_only_the_public_addresses_of_a_name_are_used(world: BrokerFixture) -> None:
    """A refused address is skipped."""
    async with server() as port:
        lookup = known(("10.0.0.8", 443), ("127.0.0.1", port)).resolve
        world.network = EgressNetwork(resolve=lookup, refusal=lambda ip: "private" if ip.startswith("10.") else None)
        async with world.running() as (_, _, key), await Guest.connect(world.listener) as skill:
            async with asyncio.timeout(SECONDS):
                assert await skill.open(tunnel(key)) is None


async def test_undeclared_host_is_refused_without_being_resolved(world: BrokerFixture) -> None:
    """An undeclared host is not even resolved, so DNS leaks nothing."""

    async def never(host: str, _port: int) -> Sequence[tuple[str, int]]:
        pytest.fail(f"{host} was looked up")

    world.network = EgressNetwork(resolve=never)
    assert await refused(world, "secret.attacker.net") == (
        'secret.attacker.net is not declared; add "secret.attacker.net" to '
        'experts."coach".skills."web".allowedDomains, or pass --allow-domain web=secret.attacker.net'
    )


@pytest.mark.parametrize("yes", [True, False])
async def test_an_undeclared_host_needs_a_yes_first(world: BrokerFixture, *, yes: bool) -> None:
    """The connection waits for the user's answer; a yes is for this host and this skill only."""
    asked: list[HostRequest] = []

    async def consent(wanted: HostRequest) -> bool:
        asked.append(wanted)
        return yes

    async with server(greeting=b"hello") as port:
        world.network = replace(known(("127.0.0.1", port)), consent=consent)
        async with world.running() as (_, _, key), await Guest.connect(world.listener) as skill:
            refusal = await skill.open(tunnel(key, "other.net"))
            hello = openssl_hello("other.net") if yes else b""
            skill.writer.write(hello)
            if yes:
                skill.writer.write_eof()
            received = await skill.ended()
    assert asked == [HostRequest("coach", "web", "other.net")]
    assert (refusal is None, received) == ((True, b"hello" + hello + b"bye") if yes else (False, b""))
    assert [(access.host, access.allowed) for access in world.accesses] == [("other.net", yes)]


async def test_name_that_does_not_resolve_is_refused(world: BrokerFixture) -> None:
    """The system's reason is in the message."""

    async def unknown(_host: str, _port: int) -> Sequence[tuple[str, int]]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    world.network = EgressNetwork(resolve=unknown)
    assert await refused(world) == f"{HOST} cannot be resolved: Name or service not known"


async def test_lookups_of_skills_do_not_keep_others_from_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many names that wait for silent servers do not delay the lookup of the model's host."""
    answered, known_names = threading.Event(), socket.getaddrinfo

    def slow(host: str, *arguments: Any, **options: Any) -> Any:
        if host == "slow.example":
            answered.wait(SECONDS)
        return known_names("127.0.0.1", *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    async with asyncio.TaskGroup() as tasks:
        for _ in range(100):
            tasks.create_task(resolve("slow.example", 443))
        await asyncio.sleep(0.1)
        async with asyncio.timeout(SECONDS / 2):
            assert await asyncio.get_running_loop().getaddrinfo("model.example", 443)
        answered.set()


async def test_host_that_does_not_answer_is_refused(world: BrokerFixture) -> None:
    """A closed port is a refusal with the reason."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    world.network = known(("127.0.0.1", port))
    reason = await refused(world)
    assert reason is not None
    assert reason.startswith(f"{HOST} could not be reached: ")
    assert "onnect" in reason


def test_this_machine_s_own_addresses_are_refused() -> None:
    """An address of this machine's own interfaces is refused, even a public one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as nothing_is_sent:
        nothing_is_sent.connect(("8.8.8.8", 53))
        mine = nothing_is_sent.getsockname()[0]
    assert refused_address(mine) is not None
    assert refused_address("8.8.8.8") is None


OTHER = f"the connection to {HOST} asks for"


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (
            openssl_hello("other.net"),
            (
                f"{OTHER} 'other.net' in its TLS ClientHello (SNI), which is not declared; connect to that host itself,"
                ' and add "other.net" to experts."coach".skills."web".allowedDomains,'
                " or pass --allow-domain web=other.net"
            ),
        ),
        (
            openssl_hello("deep.example.org"),
            f"{OTHER} 'deep.example.org' in its TLS ClientHello (SNI); connect to deep.example.org itself",
        ),
        (
            records(message([server_name("169.254.169.254\n")])),
            f"{OTHER} '169.254.169.254\\n' in its TLS ClientHello (SNI); it must ask for the host that it connects to",
        ),
        (
            openssl_hello(None),
            f"the connection to {HOST} names no host in its TLS ClientHello (SNI), so it cannot be checked",
        ),
        (
            b"GET / HTTP/1.1\r\n",
            f"the connection to {HOST} did not begin with a TLS ClientHello, and nothing but TLS leaves a Sandbox",
        ),
        (HELLO[:-1], f"the connection to {HOST} ended before it had sent a TLS ClientHello"),
    ],
)
async def test_a_client_that_requests_another_host_is_cut_off(world: BrokerFixture, said: bytes, reason: str) -> None:
    """No byte reaches the server; the client gets the TLS alert, and the record has the reason."""
    arrived: list[bytes] = []

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        arrived.append(await reader.read())
        writer.close()

    async with await asyncio.start_server(listen, "127.0.0.1", 0) as listening:
        world.network = known(("127.0.0.1", listening.sockets[0].getsockname()[1]))
        async with world.running() as (_, _, key), await Guest.connect(world.listener) as skill:
            assert await skill.open(tunnel(key)) is None
            skill.writer.write(said)
            skill.writer.write_eof()
            assert await skill.ended() == UNRECOGNIZED_NAME
    assert arrived == [b""]
    assert world.accesses == [EgressDecision("run", "web", HOST, 443, allowed=False, reason=reason)]


async def test_a_name_in_other_letters_is_the_same(world: BrokerFixture) -> None:
    """Host names are compared without regard to case."""
    async with server() as port:
        world.network = known(("127.0.0.1", port))
        async with world.running() as (_, _, key), await Guest.connect(world.listener) as skill:
            assert await skill.open(tunnel(key)) is None
            said = openssl_hello("API.Example.COM")
            skill.writer.write(said)
            skill.writer.write_eof()
            assert await skill.ended() == said + b"bye"
    assert [access.allowed for access in world.accesses] == [True]


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (EgressLimits(sent=len(HELLO) + 9), "its skill has sent {sent}, as much as a skill may in one Run"),
        (EgressLimits(received=len(HELLO) + 9), "its skill has received {sent}, as much as a skill may in one Run"),
        (EgressLimits(idle_seconds=0.05), "nothing moved for 0.05 s, as long as a connection may be idle"),
        (EgressLimits(connection_seconds=0.2), "it was open for 0.2 s, as long as a connection may be"),
    ],
)
async def test_a_limit_closes_the_connection_and_is_named(
    world: BrokerFixture, limits: EgressLimits, reason: str
) -> None:
    """Bytes within the limit pass; then the connection is closed and the record names the limit."""
    world.allow(egress=limits)
    async with server() as port:
        world.network = known(("127.0.0.1", port))
        async with world.running() as (_, _, key), await Guest.connect(world.listener) as skill:
            assert await skill.open(tunnel(key)) is None
            await greet(skill)
            skill.writer.write(b"x" * 9)
            async with asyncio.timeout(SECONDS):
                assert await skill.reader.readexactly(9) == b"x" * 9
                if limits.connection_seconds < 1:
                    while not skill.reader.at_eof():
                        skill.writer.write(b"x")
                        await skill.reader.read(1)
                elif limits.idle_seconds > 1:
                    skill.writer.write(b"x")
            assert await skill.ended() == b""
    said = reason.format(sent=f"{len(HELLO) + 9} bytes")
    assert world.accesses == [
        EgressDecision("run", "web", HOST, 443, allowed=True),
        EgressDecision("run", "web", HOST, 443, allowed=False, reason=f"the connection to {HOST} was closed: {said}"),
    ]


async def test_a_silent_client_is_cut_off(world: BrokerFixture) -> None:
    """A client that does not send a ClientHello in time is disconnected."""
    world.allow(egress=EgressLimits(hello_seconds=0.05))
    async with server() as port:
        world.network = known(("127.0.0.1", port))
        async with world.running() as (_, _, key), await Guest.connect(world.listener) as skill:
            assert await skill.open(tunnel(key)) is None
            assert await skill.ended() == UNRECOGNIZED_NAME
    assert [access.reason for access in world.accesses] == [
        f"the connection to {HOST} sent no whole TLS ClientHello within 0.05 s"
    ]


async def test_connections_at_once_are_bounded_for_each_skill(world: BrokerFixture) -> None:
    """One connection above the limit is refused until another is closed; other skills are not affected."""
    world.allow(
        egress=EgressLimits(connections=1), hosts={**world.authority.hosts, "other": SkillHosts("other", (HOST,))}
    )
    async with server() as port:
        world.network = known(("127.0.0.1", port))
        async with world.running() as (_, _, key):
            async with await Guest.connect(world.listener) as first, await Guest.connect(world.listener) as second:
                assert await first.open(tunnel(key)) is None
                assert await second.open(tunnel(key)) == (
                    "1 connections are open, as many as a skill may have at once; close some"
                )
                async with await Guest.connect(world.listener) as others:
                    assert await others.open(tunnel(key).with_(credential="other")) is None
                first.writer.write(HELLO)
                first.writer.write_eof()
                await first.ended()
            async with await Guest.connect(world.listener) as third:
                assert await third.open(tunnel(key)) is None


async def test_a_skill_gone_wild_does_not_fill_the_records(world: BrokerFixture) -> None:
    """Refusals above the limit of connections of a Run are recorded only once."""
    world.allow(egress=EgressLimits(connections_in_all=2))
    async with world.running() as (_, _, key):
        for _ in range(5):
            for credential in ("credential", "guessed", "guessed again"):
                async with await Guest.connect(world.listener) as skill:
                    asked = tunnel(key, "undeclared.net").with_(credential=credential)
                    assert await skill.open(asked) is not None
    assert len(world.accesses) == 2 * 3
    assert {access.reason for access in world.accesses[-2:]} == {
        "undeclared.net was not connected to: 2 connections were asked for, as many as a skill may in one Run"
    }


async def test_busy_connection_lives_on(world: BrokerFixture) -> None:
    """Idle time counts from the last byte."""
    idle = 0.5
    world.allow(egress=EgressLimits(idle_seconds=idle))
    async with server() as port:
        world.network = known(("127.0.0.1", port))
        async with world.running() as (_, _, key), await Guest.connect(world.listener) as skill:
            assert await skill.open(tunnel(key)) is None
            await greet(skill)
            clock = asyncio.get_running_loop().time
            until = clock() + 2 * idle
            while clock() < until:
                skill.writer.write(b"x")
                assert await skill.reader.readexactly(1) == b"x"


async def test_a_host_that_does_not_read_holds_no_connection(world: BrokerFixture) -> None:
    """After the idle limit, the skill's connection is closed and it may open another."""
    world.allow(egress=EgressLimits(connections=1, idle_seconds=0.1))
    over = asyncio.Event()

    async def never_read(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await over.wait()
        writer.transport.abort()

    async with await asyncio.start_server(never_read, "127.0.0.1", 0, limit=1) as listening:
        world.network = known(("127.0.0.1", listening.sockets[0].getsockname()[1]))
        async with world.running() as (_, _, key):
            async with await Guest.connect(world.listener) as skill:
                assert await skill.open(tunnel(key)) is None
                skill.writer.write(HELLO + b"x" * 32 * 1024 * 1024)
                assert await skill.ended() == b""
                skill.writer.transport.abort()
            async with await Guest.connect(world.listener) as another:
                assert await another.open(tunnel(key)) is None
        over.set()
    closed = f"the connection to {HOST} was closed: nothing moved for 0.1 s, as long as a connection may be idle"
    assert [access.reason for access in world.accesses[:2]] == [None, closed]


async def test_revoking_ends_tunnels(world: BrokerFixture) -> None:
    """When the session is revoked, its open connections are closed."""
    async with server() as port:
        world.network = known(("127.0.0.1", port))
        async with world.running() as (session, _, key), await Guest.connect(world.listener) as skill:
            assert await skill.open(tunnel(key)) is None
            session.revoke()
            assert await skill.ended() == b""


async def test_system_resolver() -> None:
    """A name is resolved to addresses with the port, each once."""
    assert ("127.0.0.1", 443) in await resolve("localhost", 443)
