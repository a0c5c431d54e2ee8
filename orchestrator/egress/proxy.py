"""Connections of skills to their declared hosts, opened on the host and pinned to a checked address."""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address

from orchestrator.egress.policy import PORT, HostRequest, not_allowed, plain, refusal, undeclared
from orchestrator.egress.relay import CHUNK
from orchestrator.sandbox.authority import Authority
from orchestrator.sandbox.frame_stream import FrameStream
from orchestrator.wire.frames import Tunnel

_CONNECT_SECONDS = 10

_LOOKUPS = ThreadPoolExecutor(16, thread_name_prefix="lookup")
"""Separate threads for the names of skills: while these wait for servers that do not answer, the model's API is
still resolved."""

Address = tuple[str, int]


async def resolve(host: str, port: int) -> Sequence[Address]:
    """Return the addresses of a name, as this machine resolves it, each with the port.

    Raises:
        OSError: the name has no address.
    """
    ask = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
    found = await asyncio.get_running_loop().run_in_executor(_LOOKUPS, ask)
    return tuple(dict.fromkeys((str(info[4][0]), port) for info in found))


async def deny_all(_: HostRequest) -> bool:
    """Refuse: undeclared hosts are not reached."""
    return False


def refused_address(address: str) -> str | None:
    """Return why this IP address is refused: it is not public, or one of this machine's own; None if allowed."""
    return refusal(address) or ("this machine" if _is_own(address) else None)


@dataclass(frozen=True, slots=True)
class EgressNetwork:
    """The proxy's view of the network: how names are resolved, and which addresses are refused.

    `consent` is called before a skill reaches an undeclared host; meanwhile the connection waits.
    """

    resolve: Callable[[str, int], Awaitable[Sequence[Address]]] = resolve
    refusal: Callable[[str], str | None] = refused_address
    consent: Callable[[HostRequest], Awaitable[bool]] = deny_all


async def connect(tunnel: Tunnel, authority: Authority, network: EgressNetwork) -> FrameStream | str:
    """Connect to the host that a skill asks for, or return the reason of the refusal."""
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


async def _connect(name: str, addresses: Sequence[Address]) -> FrameStream | str:
    failure = ""
    for ip, port in addresses:
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                return FrameStream(*await asyncio.open_connection(ip, port, limit=CHUNK))
        except OSError as error:
            failure = _cause(error)
    return f"{name} could not be reached: {failure}"


def _cause(error: OSError) -> str:
    return f"no answer within {_CONNECT_SECONDS} s" if isinstance(error, TimeoutError) else error.strerror or str(error)


def _is_own(address: str) -> bool:
    """Whether packets to it stay on this machine: then the kernel chooses that same address as the source."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as nothing_is_sent:
        try:
            nothing_is_sent.connect((address, PORT))
        except OSError:
            return False
        return ip_address(nothing_is_sent.getsockname()[0]) == ip_address(address)
