"""How a Sandbox with a network verifies its isolation, against real sockets."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import cast

import pytest

from orchestrator.runtime.errors import NetworkOpenError
from orchestrator.runtime.isolation import (
    ROUND_SECONDS,
    Target,
    check_repeatedly,
    listed,
    name_server_target,
    wait_until_isolated,
)

HERE = ("127.0.0.1", "::1")


@asynccontextmanager
async def listening(hosts: tuple[str, ...] = HERE) -> AsyncIterator[Target]:
    """Accept connections at one port of these addresses."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    servers = [await asyncio.start_server(lambda _, writer: writer.close(), host, port) for host in hosts]
    try:
        yield Target(port, hosts)
    finally:
        for server in servers:
            server.close()


class NameServer(asyncio.DatagramProtocol):
    """Answers queries, except for the first `deaf` ones."""

    def __init__(self, deaf: int = 0) -> None:
        self.deaf = deaf
        self.asked: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Store the transport for the answers."""
        self.transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """Answer a query."""
        self.asked.append(data)
        if len(self.asked) > self.deaf:
            self.transport.sendto(b"answer", addr)


@asynccontextmanager
async def resolving(server: NameServer, port: int = 0) -> AsyncIterator[Target]:
    """Answer over UDP, but not over TCP."""
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(lambda: server, ("127.0.0.1", port))
    try:
        yield Target(transport.get_extra_info("sockname")[1], HERE[:1], names=True)
    finally:
        transport.close()


def silent() -> Target:
    """A port without a listener."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return Target(probe.getsockname()[1], HERE)


async def test_it_is_passed_where_only_the_broker_answers() -> None:
    """If only the broker answers, in both address families, the check passes in one round."""
    async with asyncio.timeout(10), listening() as broker:
        assert await wait_until_isolated(broker, [silent(), silent()]) == 0


@pytest.mark.parametrize("host", HERE)
async def test_one_open_address_of_one_family_keeps_it_shut(host: str) -> None:
    """One open address fails the check; the sentence contains the address and the remedy."""
    async with asyncio.timeout(10), listening() as broker, listening((host,)) as other:
        with pytest.raises(NetworkOpenError) as caught:
            await wait_until_isolated(broker, [silent(), other], seconds=0.3)
    said = str(caught.value)
    assert said.startswith(f"its network is open: {host} port {other.port} can still be reached after 0.3 s; use a ")
    assert "--allow-unenforced-network" in said


async def test_a_policy_that_comes_into_force_late_is_waited_for() -> None:
    """A late policy only delays the check; earlier answers of the broker's own port are counted for both sides."""
    async with asyncio.timeout(10), listening() as broker:
        async with asyncio.TaskGroup() as group, listening() as forbidden, listening() as other:
            passing = group.create_task(wait_until_isolated(broker, [forbidden, other]))
            await asyncio.sleep(0.3)
            assert not passing.done()
        assert passing.result() >= len(HERE)


@pytest.mark.parametrize("lost", [0, 1, 3])
async def test_a_name_server_that_answers_keeps_it_shut(lost: int) -> None:
    """A name server that answers over UDP fails the check, even if a datagram is lost."""
    server = NameServer(deaf=lost)
    async with asyncio.timeout(10), listening() as broker, resolving(server) as names:
        with pytest.raises(NetworkOpenError) as caught:
            await wait_until_isolated(broker, [silent(), names], seconds=0)
    assert str(caught.value).startswith(f"its network is open: 127.0.0.1 port {names.port} can still be reached")
    assert server.asked[0][12:] == b"\nkubernetes\x07default\x03svc\x07cluster\x05local\0\0\1\0\1"


async def test_a_name_server_is_tried_over_tcp_too() -> None:
    """A name server is tried over TCP too, since a policy may cover only one protocol."""
    async with asyncio.timeout(10), listening() as broker, listening(HERE[:1]) as other:
        with pytest.raises(NetworkOpenError, match="its network is open"):
            await wait_until_isolated(broker, [silent(), replace(other, names=True)], seconds=0)


async def test_name_servers_that_are_silent_cost_no_more_than_the_others() -> None:
    """A silent name server, a closed port and a dropped packet are tried in parallel, in the time of one check."""
    clock = asyncio.get_running_loop().time
    async with asyncio.timeout(10), listening() as broker, resolving(NameServer(deaf=1000)) as deaf:
        began = clock()
        nobody, nowhere = replace(silent(), names=True), Target(53, ("192.0.2.254",), names=True)
        assert await wait_until_isolated(broker, [silent(), deaf, nobody, nowhere]) == 0
        assert clock() - began < 5 * ROUND_SECONDS


async def test_what_opens_while_it_works_is_found_at_the_next_look() -> None:
    """An address that opens during the work is found at the next check; before that nothing is reported."""
    server = NameServer()
    async with asyncio.timeout(10):
        async with resolving(server) as names:
            pass
        watching = asyncio.ensure_future(check_repeatedly([silent(), names], interval=0.05, seconds=0.05))
        await asyncio.sleep(0.5)
        assert not watching.done()
        async with resolving(server, names.port):
            with pytest.raises(NetworkOpenError) as caught:
                await watching
    said = str(caught.value)
    assert said.startswith(f"its network was opened while it worked: 127.0.0.1 port {names.port} can be reached; use a")


def test_name_servers_are_reported_as_such() -> None:
    """A message about port 53 mentions DNS."""
    assert listed([("10.96.0.10", 53), ("10.96.0.1", 443)]) == "10.96.0.10 port 53 (DNS), 10.96.0.1 port 443"
    assert name_server_target(("10.0.0.1", "fd00::1", "10.0.0.1")) == Target(53, ("10.0.0.1", "fd00::1"), names=True)


async def test_silence_means_nothing_where_the_broker_is_silent_too() -> None:
    """If the broker is silent too, the check fails like a connection, and the Sandbox retries."""
    async with asyncio.timeout(10), listening(("127.0.0.1",)) as broker:
        with pytest.raises(OSError, match="the broker does not answer"):
            await wait_until_isolated(Target(broker.port, HERE), [silent()])


def test_targets_are_read() -> None:
    """A port and addresses are parsed, IPv6 without brackets."""
    assert Target.parse("443@10.0.0.1,fd00::1") == Target(443, ("10.0.0.1", "fd00::1"))


@pytest.mark.parametrize("text", ["", "443", "x@10.0.0.1", "443@$(NODE_IPS)", "443@example.com"])
def test_what_is_no_target_is_refused(text: str) -> None:
    """Invalid text, as from a variable that the kubelet did not fill in, is refused."""
    with pytest.raises((ValueError, OSError)):
        Target.parse(text)
