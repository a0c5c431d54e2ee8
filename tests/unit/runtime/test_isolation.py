"""What a Sandbox proves that has a network, against real sockets."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import cast

import pytest

from orchestrator.runtime.errors import NetworkOpenError
from orchestrator.runtime.isolation import ROUND_SECONDS, Target, asked_for_names, listed, pass_through, stay_closed

HERE = ("127.0.0.1", "::1")


@asynccontextmanager
async def listening(hosts: tuple[str, ...] = HERE) -> AsyncIterator[Target]:
    """Answer at one port of these addresses."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    servers = [await asyncio.start_server(lambda _, writer: writer.close(), host, port) for host in hosts]
    try:
        yield Target(port, hosts)
    finally:
        for server in servers:
            server.close()


class NameServer(asyncio.DatagramProtocol):
    """Answers whoever asks, after it took no notice of the first `deaf` queries."""

    def __init__(self, deaf: int = 0) -> None:
        self.deaf = deaf
        self.asked: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way to answer."""
        self.transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """Answer."""
        self.asked.append(data)
        if len(self.asked) > self.deaf:
            self.transport.sendto(b"answer", addr)


@asynccontextmanager
async def resolving(server: NameServer, port: int = 0) -> AsyncIterator[Target]:
    """Let a name server answer over UDP, and nobody over TCP."""
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(lambda: server, ("127.0.0.1", port))
    try:
        yield Target(transport.get_extra_info("sockname")[1], HERE[:1], names=True)
    finally:
        transport.close()


def silent() -> Target:
    """A port that nobody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return Target(probe.getsockname()[1], HERE)


async def test_it_is_passed_where_only_the_broker_answers() -> None:
    """In both families of addresses, in one round."""
    async with asyncio.timeout(10), listening() as broker:
        assert await pass_through(broker, [silent(), silent()]) == 0


@pytest.mark.parametrize("host", HERE)
async def test_one_open_address_of_one_family_keeps_it_shut(host: str) -> None:
    """The sentence names it and what to do."""
    async with asyncio.timeout(10), listening() as broker, listening((host,)) as other:
        with pytest.raises(NetworkOpenError) as caught:
            await pass_through(broker, [silent(), other], patience=0.3)
    said = str(caught.value)
    assert said.startswith(f"its network is open: {host} port {other.port} can still be reached after 0.3 s; use a ")
    assert "--allow-unenforced-network" in said


async def test_a_policy_that_comes_into_force_late_is_waited_for() -> None:
    """What answered before is counted where it is the broker's own port, so that both sides know of the same."""
    async with asyncio.timeout(10), listening() as broker:
        async with asyncio.TaskGroup() as group, listening() as forbidden, listening() as other:
            passing = group.create_task(pass_through(broker, [forbidden, other]))
            await asyncio.sleep(0.3)
            assert not passing.done()
        assert passing.result() >= len(HERE)


@pytest.mark.parametrize("lost", [0, 1, 3])
async def test_a_name_server_that_answers_keeps_it_shut(lost: int) -> None:
    """Over UDP, which no connection tells; a datagram that is lost is not taken for silence."""
    server = NameServer(deaf=lost)
    async with asyncio.timeout(10), listening() as broker, resolving(server) as names:
        with pytest.raises(NetworkOpenError) as caught:
            await pass_through(broker, [silent(), names], patience=0)
    assert str(caught.value).startswith(f"its network is open: 127.0.0.1 port {names.port} can still be reached")
    assert server.asked[0][12:] == b"\nkubernetes\x07default\x03svc\x07cluster\x05local\0\0\1\0\1"


async def test_a_name_server_is_tried_over_tcp_too() -> None:
    """A policy may have forgotten one of the two."""
    async with asyncio.timeout(10), listening() as broker, listening(HERE[:1]) as other:
        with pytest.raises(NetworkOpenError, match="its network is open"):
            await pass_through(broker, [silent(), replace(other, names=True)], patience=0)


async def test_name_servers_that_are_silent_cost_no_more_than_the_others() -> None:
    """One that takes queries and answers none, one where nobody is, and what swallows every packet: all at once."""
    clock = asyncio.get_running_loop().time
    async with asyncio.timeout(10), listening() as broker, resolving(NameServer(deaf=1000)) as deaf:
        began = clock()
        nobody, nowhere = replace(silent(), names=True), Target(53, ("192.0.2.254",), names=True)
        assert await pass_through(broker, [silent(), deaf, nobody, nowhere]) == 0
        assert clock() - began < 5 * ROUND_SECONDS


async def test_what_opens_while_it_works_is_found_at_the_next_look() -> None:
    """Name servers like whatever else must be closed; until then it goes on."""
    server = NameServer()
    async with asyncio.timeout(10):
        async with resolving(server) as names:
            pass
        watching = asyncio.ensure_future(stay_closed([silent(), names], every=0.05, seconds=0.05))
        await asyncio.sleep(0.5)
        assert not watching.done()
        async with resolving(server, names.port):
            with pytest.raises(NetworkOpenError) as caught:
                await watching
    said = str(caught.value)
    assert said.startswith(f"its network was opened while it worked: 127.0.0.1 port {names.port} can be reached; use a")


def test_name_servers_are_told_as_such() -> None:
    """A port's number tells few people what it is for."""
    assert listed([("10.96.0.10", 53), ("10.96.0.1", 443)]) == "10.96.0.10 port 53 (DNS), 10.96.0.1 port 443"
    assert asked_for_names(("10.0.0.1", "fd00::1", "10.0.0.1")) == Target(53, ("10.0.0.1", "fd00::1"), names=True)


async def test_silence_means_nothing_where_the_broker_is_silent_too() -> None:
    """The Sandbox tries again as it does when its broker is away."""
    async with asyncio.timeout(10), listening(("127.0.0.1",)) as broker:
        with pytest.raises(OSError, match="the broker does not answer"):
            await pass_through(Target(broker.port, HERE), [silent()])


def test_targets_are_read() -> None:
    """A port and addresses, IPv6 bare."""
    assert Target.parse("443@10.0.0.1,fd00::1") == Target(443, ("10.0.0.1", "fd00::1"))


@pytest.mark.parametrize("text", ["", "443", "x@10.0.0.1", "443@$(NODE_IPS)", "443@example.com"])
def test_what_is_no_target_is_refused(text: str) -> None:
    """A variable that the kubelet did not fill in is not taken for silence."""
    with pytest.raises((ValueError, OSError)):
        Target.parse(text)
