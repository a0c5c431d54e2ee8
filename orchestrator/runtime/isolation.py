"""Before a Sandbox takes its Run it proves that it reaches its broker and nothing else.

NetworkPolicies take effect some time after a Pod's first code, add up, and are ignored by some clusters. So it is
tried: whatever must be closed has to be silent while the broker answers, in one and the same round, in every family of
addresses. Nothing else of a Sandbox opens a connection before that. Name servers are asked over UDP too: by names
whatever is known inside can be told to anybody outside. While it works, all of it is tried again from time to time.
"""

import asyncio
import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_address

from orchestrator.runtime.errors import NetworkOpenError
from orchestrator.wire import resolvers

ROUND_SECONDS = 0.1
"""How long nobody may answer who is to be silent; inside a cluster an answer takes a millisecond."""

PATIENCE_SECONDS = 30.0
_PAUSE_SECONDS = 0.02
_ANSWERS_SECONDS = 2.0

WORKING_SECONDS = 2.0
"""The same while a Run works, when nobody waits for it: a name server that asks others takes longer."""

_ASKED = ("kubernetes.default.svc.cluster.local", "localhost")
"""What a cluster's name server answers by itself, and what most others do."""

_TIMES = 4
_DATAGRAM_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Target:
    """A port at some addresses."""

    port: int
    hosts: tuple[str, ...]
    names: bool = False
    """Whether they are name servers, which are asked over UDP as well."""

    @classmethod
    def parse(cls, text: str) -> "Target":
        """Read `PORT@HOST,HOST`.

        Raises:
            ValueError: it is something else.
        """
        port, _, hosts = text.partition("@")
        addresses = tuple(host for host in hosts.split(",") if host)
        if not addresses:
            message = f"{text!r} is no PORT@HOST,HOST"
            raise ValueError(message)
        for address in addresses:
            ip_address(address)
        return cls(int(port), addresses)


async def pass_through(broker: Target, closed: Iterable[Target], patience: float = PATIENCE_SECONDS) -> int:
    """Try until nothing of `closed` answers; give how often the first of it, the broker's own other port, did.

    Raises:
        NetworkOpenError: something still answers after `patience` seconds.
        OSError: the broker does not.
    """
    first, *_ = targets = tuple(closed)
    clock = asyncio.get_running_loop().time
    until = clock() + patience
    reached = 0
    while True:
        open_now = await _round(broker, targets)
        reached += sum(host in first.hosts and port == first.port for host, port in open_now)
        if not open_now:
            return reached
        if clock() > until:
            message = f"its network is open: {listed(open_now)} can still be reached after {patience:g} s; {_REMEDY}"
            raise NetworkOpenError(message)
        await asyncio.sleep(_PAUSE_SECONDS)


async def stay_closed(closed: Iterable[Target], every: float, seconds: float = WORKING_SECONDS) -> None:
    """Try again every so many seconds whether nothing of `closed` answers within `seconds`; never return.

    Raises:
        NetworkOpenError: something does.
    """
    targets = tuple(closed)
    while True:
        if open_now := await find_open(targets, seconds):
            message = f"its network was opened while it worked: {listed(open_now)} can be reached; {_REMEDY}"
            raise NetworkOpenError(message)
        await asyncio.sleep(every)


async def find_open(closed: Iterable[Target], seconds: float = ROUND_SECONDS) -> list[tuple[str, int]]:
    """Try everything at once; give what answers within `seconds`."""
    async with asyncio.TaskGroup() as group:
        tries = {
            (host, target.port, over_udp): group.create_task(ask(host, target.port, seconds))
            for target in closed
            for over_udp, ask in ((False, _answers), (True, _resolves))
            for host in target.hosts
            if target.names or not over_udp
        }
    return list(dict.fromkeys((host, port) for (host, port, _), answered in tries.items() if answered.result()))


def listed(answered: Iterable[tuple[str, int]]) -> str:
    """Name what answered, as a person reads it."""
    return ", ".join(f"{host} port {port}{' (DNS)' * (port == resolvers.PORT)}" for host, port in answered)


def asked_for_names(hosts: Iterable[str]) -> Target:
    """Give the target that name servers are."""
    return Target(resolvers.PORT, tuple(dict.fromkeys(hosts)), names=True)


async def _round(broker: Target, targets: Iterable[Target]) -> list[tuple[str, int]]:
    """Try everything at once; give what answered. That the broker does shows that silence means something."""
    async with asyncio.TaskGroup() as group:
        answers = [group.create_task(_answers(host, broker.port, _ANSWERS_SECONDS)) for host in broker.hosts]
        tried = group.create_task(find_open(targets))
    if not all(answer.result() for answer in answers):
        message = "the broker does not answer"
        raise OSError(message)
    return tried.result()


async def _answers(host: str, port: int, seconds: float) -> bool:
    with socket.socket(_family(host), socket.SOCK_STREAM) as attempt:
        attempt.setblocking(False)  # noqa: FBT003 - the standard library's
        try:
            async with asyncio.timeout(seconds):
                await asyncio.get_running_loop().sock_connect(attempt, (host, port))
        except OSError:
            # Silent, or refused by whoever enforces the policy: what is tried is known to listen.
            return False
        return True


async def _resolves(host: str, port: int, seconds: float) -> bool:
    """Whether a name server answers; a datagram may be lost, so it is asked several times."""
    loop = asyncio.get_running_loop()
    with socket.socket(_family(host), socket.SOCK_DGRAM) as attempt:
        attempt.setblocking(False)  # noqa: FBT003 - the standard library's
        for number in range(_TIMES):
            until = loop.time() + seconds / _TIMES
            try:
                # Connected, it takes datagrams of nobody else.
                attempt.connect((host, port))
                attempt.send(_query(_ASKED[number % len(_ASKED)], number))
                async with asyncio.timeout_at(until):
                    await loop.sock_recv(attempt, _DATAGRAM_BYTES)
            except OSError:
                await asyncio.sleep(until - loop.time())
            else:
                return True
    return False


def _query(name: str, number: int) -> bytes:
    """A query for the IPv4 addresses of a name (RFC 1035, 4.1)."""
    header = struct.pack("!6H", number, 0x0100, 1, 0, 0, 0)
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return header + labels + b"\0" + struct.pack("!2H", 1, 1)


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


_REMEDY = (
    "use a network plugin that enforces NetworkPolicies, also towards nodes, name servers and the API server, have"
    " policies that allow more (such as one for DNS) select other Pods, or accept it with --allow-unenforced-network"
)
