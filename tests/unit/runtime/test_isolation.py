"""What a Sandbox proves that has a network, against real sockets."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from orchestrator.runtime.errors import NetworkOpenError
from orchestrator.runtime.isolation import Target, pass_through

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
