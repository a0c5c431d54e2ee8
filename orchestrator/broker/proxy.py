"""Connections of skills to the hosts they declared, opened on the host's side and pinned to a checked address."""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address

from orchestrator.broker.authority import Authority
from orchestrator.broker.egress import PORT, Wanted, not_allowed, plain, refusal, undeclared
from orchestrator.broker.relay import CHUNK
from orchestrator.broker.stream import Stream
from orchestrator.wire.link import Tunnel

_CONNECT_SECONDS = 10

_LOOKUPS = ThreadPoolExecutor(16, thread_name_prefix="lookup")
"""Names that skills ask for are looked up in threads of their own: while they wait for servers that do not answer,
the model's is still found."""

Address = tuple[str, int]


async def resolve(host: str, port: int) -> Sequence[Address]:
    """The addresses of a name, as this machine resolves it, and the port to reach it at.

    Raises:
        OSError: it has none.
    """
    ask = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
    found = await asyncio.get_running_loop().run_in_executor(_LOOKUPS, ask)
    return tuple(dict.fromkeys((str(info[4][0]), port) for info in found))


async def nobody_consents(_: Wanted) -> bool:
    """Refuse: what was not declared is not reached."""
    return False


def refused_address(address: str) -> str | None:
    """Why nobody may connect to this IP address: it is no public one, or one of this machine's own; None if it may."""
    return refusal(address) or ("this machine" if _is_own(address) else None)


@dataclass(frozen=True, slots=True)
class Network:
    """The world as the proxy sees it: how names become addresses, and which addresses are refused.

    `consent` is asked before a skill reaches a host that nobody declared; meanwhile the connection waits.
    """

    resolve: Callable[[str, int], Awaitable[Sequence[Address]]] = resolve
    refusal: Callable[[str], str | None] = refused_address
    consent: Callable[[Wanted], Awaitable[bool]] = nobody_consents


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
        return f"{name} leads to no address that may be reached: {listed}; nothing in perstack.toml allows those"
    return await _connect(name, allowed)


async def _connect(name: str, addresses: Sequence[Address]) -> Stream | str:
    failure = ""
    for ip, port in addresses:
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                return Stream(*await asyncio.open_connection(ip, port, limit=CHUNK))
        except OSError as error:
            failure = _cause(error)
    return f"{name} could not be reached: {failure}"


def _cause(error: OSError) -> str:
    return f"no answer within {_CONNECT_SECONDS} s" if isinstance(error, TimeoutError) else error.strerror or str(error)


def _is_own(address: str) -> bool:
    """Whether packets to it stay here: then the kernel sends them from the very address they go to."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as nothing_is_sent:
        try:
            nothing_is_sent.connect((address, PORT))
        except OSError:
            return False
        return ip_address(nothing_is_sent.getsockname()[0]) == ip_address(address)
