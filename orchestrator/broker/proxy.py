"""Connections of skills to the hosts they declared, opened on the host's side and pinned to a checked address."""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from orchestrator.broker.authority import Authority
from orchestrator.broker.egress import Wanted, not_allowed, plain, refusal, undeclared
from orchestrator.broker.stream import Stream
from orchestrator.wire.link import Tunnel

_CONNECT_SECONDS = 10
_IDLE_SECONDS = 300
_CHUNK = 64 * 1024

Address = tuple[str, int]


async def resolve(host: str, port: int) -> Sequence[Address]:
    """The addresses of a name, as this machine resolves it, and the port to reach it at.

    Raises:
        OSError: it has none.
    """
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return tuple(dict.fromkeys((str(info[4][0]), port) for info in found))


async def nobody_consents(_: Wanted) -> bool:
    """Refuse: what was not declared is not reached."""
    return False


@dataclass(frozen=True, slots=True)
class Network:
    """The world as the proxy sees it: how names become addresses, which addresses are refused, how long to wait.

    `consent` is asked before a skill reaches a host that nobody declared; meanwhile the connection waits.
    """

    resolve: Callable[[str, int], Awaitable[Sequence[Address]]] = resolve
    refusal: Callable[[str], str | None] = refusal
    idle_seconds: float = _IDLE_SECONDS
    consent: Callable[[Wanted], Awaitable[bool]] = nobody_consents


@dataclass(frozen=True, slots=True)
class Traffic:
    """Bytes that skills sent to hosts and received from them."""

    sent: int = 0
    received: int = 0

    def __add__(self, other: "Traffic") -> "Traffic":
        return Traffic(self.sent + other.sent, self.received + other.received)


async def reach(tunnel: Tunnel, authority: Authority, network: Network) -> Stream | str:
    """Connect to the host that a skill asks for, or say in a sentence why not."""
    wanted = undeclared(tunnel, authority)
    if wanted is not None and await network.consent(wanted):
        authority = authority.allowing(tunnel.credential, wanted.host)
    reason = not_allowed(tunnel, authority)
    if reason is not None:
        return reason
    name = plain(tunnel.host)
    try:
        async with asyncio.timeout(_CONNECT_SECONDS):
            addresses = await network.resolve(name, tunnel.port)
    except OSError as error:
        return f"{name} cannot be resolved: {_cause(error)}"
    anywhere = authority.hosts[tunnel.credential].private_ok
    refused = {address: None if anywhere else network.refusal(address[0]) for address in addresses}
    allowed = [address for address, why in refused.items() if why is None]
    if not allowed:
        listed = ", ".join(f"{address[0]} is {why}" for address, why in refused.items())
        return f"{name} leads to no address that may be reached: {listed}"
    return await _connect(name, allowed)


async def _connect(name: str, addresses: Sequence[Address]) -> Stream | str:
    failure = ""
    for ip, port in addresses:
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                return Stream(*await asyncio.open_connection(ip, port, limit=_CHUNK))
        except OSError as error:
            failure = _cause(error)
    return f"{name} could not be reached: {failure}"


def _cause(error: OSError) -> str:
    return f"no answer within {_CONNECT_SECONDS} s" if isinstance(error, TimeoutError) else error.strerror or str(error)


async def relay(inside: Stream, outside: Stream, idle_seconds: float) -> Traffic:
    """Copy bytes both ways until both ends are done, one fails, or nothing moves for `idle_seconds`."""
    moved = {"sent": 0, "received": 0}
    loop = asyncio.get_running_loop()
    with suppress(TimeoutError):
        async with asyncio.timeout(idle_seconds) as idle:

            async def copy(source: Stream, target: Stream, way: str) -> None:
                while chunk := await source.reader.read(_CHUNK):
                    idle.reschedule(loop.time() + idle_seconds)
                    target.writer.write(chunk)
                    await target.writer.drain()
                    moved[way] += len(chunk)
                target.writer.write_eof()

            # Either end may reset the connection at any moment; that ends both directions.
            try:
                async with asyncio.TaskGroup() as ways:
                    ways.create_task(copy(inside, outside, "sent"))
                    ways.create_task(copy(outside, inside, "received"))
            except* OSError:
                pass
    return Traffic(**moved)
