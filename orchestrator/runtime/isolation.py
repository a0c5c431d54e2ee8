"""Before a Sandbox takes its Run, it verifies that it can reach its broker and nothing else.

NetworkPolicies take effect some time after a Pod's first code, add up, and are ignored by some clusters. So the Sandbox
tries: everything that must be closed has to be silent while the broker answers, in the same round, for every address
family. Before that, nothing else in the Sandbox opens a connection. Name servers are queried over UDP as well: through
queries, data could be sent to any server outside. While a Run works, the checks are repeated regularly.
"""

import asyncio
import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_address

from orchestrator.runtime.errors import NetworkOpenError
from orchestrator.wire import name_servers

ROUND_SECONDS = 0.1
"""How long a closed address must stay silent; inside a cluster an answer takes a millisecond."""

ISOLATION_SECONDS = 30.0
_PAUSE_SECONDS = 0.02
_ANSWER_SECONDS = 2.0

WORKING_SECONDS = 2.0
"""The same while a Run works and nothing waits for the check: a name server that queries others takes longer."""

_QUERIED_NAMES = ("kubernetes.default.svc.cluster.local", "localhost")
"""Names that a cluster's name server, or most others, resolve without querying another server."""

_QUERIES = 4
_DATAGRAM_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Target:
    """A port at some addresses."""

    port: int
    hosts: tuple[str, ...]
    names: bool = False
    """Whether these are name servers, which are queried over UDP as well."""

    @classmethod
    def parse(cls, text: str) -> "Target":
        """Parse `PORT@HOST,HOST`.

        Raises:
            ValueError: the text has another form.
        """
        port, _, hosts = text.partition("@")
        addresses = tuple(host for host in hosts.split(",") if host)
        if not addresses:
            message = f"{text!r} is not PORT@HOST,HOST"
            raise ValueError(message)
        for address in addresses:
            ip_address(address)
        return cls(int(port), addresses)


async def wait_until_isolated(broker: Target, closed: Iterable[Target], seconds: float = ISOLATION_SECONDS) -> int:
    """Try until nothing in `closed` answers; return how often its first target, the broker's forbidden port, answered.

    Raises:
        NetworkOpenError: a closed target still answers after `seconds`.
        OSError: the broker does not answer.
    """
    first, *_ = targets = tuple(closed)
    clock = asyncio.get_running_loop().time
    until = clock() + seconds
    reached = 0
    while True:
        open_now = await _round(broker, targets)
        reached += sum(host in first.hosts and port == first.port for host, port in open_now)
        if not open_now:
            return reached
        if clock() > until:
            message = f"its network is open: {listed(open_now)} can still be reached after {seconds:g} s; {_REMEDY}"
            raise NetworkOpenError(message)
        await asyncio.sleep(_PAUSE_SECONDS)


async def check_repeatedly(closed: Iterable[Target], interval: float, seconds: float = WORKING_SECONDS) -> None:
    """Check every `interval` seconds that nothing in `closed` answers within `seconds`; never return.

    Raises:
        NetworkOpenError: a closed target answers.
    """
    targets = tuple(closed)
    while True:
        if open_now := await find_open(targets, seconds):
            message = f"its network was opened while it worked: {listed(open_now)} can be reached; {_REMEDY}"
            raise NetworkOpenError(message)
        await asyncio.sleep(interval)


async def find_open(closed: Iterable[Target], seconds: float = ROUND_SECONDS) -> list[tuple[str, int]]:
    """Try all targets at once; return those that answer within `seconds`."""
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
    """Describe the addresses that answered, for a message."""
    return ", ".join(f"{host} port {port}{' (DNS)' * (port == name_servers.PORT)}" for host, port in answered)


def name_server_target(hosts: Iterable[str]) -> Target:
    """The target that consists of name servers."""
    return Target(name_servers.PORT, tuple(dict.fromkeys(hosts)), names=True)


async def _round(broker: Target, targets: Iterable[Target]) -> list[tuple[str, int]]:
    """Try all targets at once; return those that answered. The broker must answer, else silence proves nothing."""
    async with asyncio.TaskGroup() as group:
        answers = [group.create_task(_answers(host, broker.port, _ANSWER_SECONDS)) for host in broker.hosts]
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
            # Silent, or refused by the policy: the tried addresses are known to listen.
            return False
        return True


async def _resolves(host: str, port: int, seconds: float) -> bool:
    """Whether a name server answers; several queries are sent, since a datagram may be lost."""
    loop = asyncio.get_running_loop()
    with socket.socket(_family(host), socket.SOCK_DGRAM) as attempt:
        attempt.setblocking(False)  # noqa: FBT003 - the standard library's
        for number in range(_QUERIES):
            until = loop.time() + seconds / _QUERIES
            try:
                # A connected socket receives datagrams only from this address.
                attempt.connect((host, port))
                attempt.send(_query(_QUERIED_NAMES[number % len(_QUERIED_NAMES)], number))
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
    "use a network plugin that enforces NetworkPolicies, also for nodes, name servers and the API server; make"
    " policies that allow more (such as one for DNS) select other Pods; or accept it with --allow-unenforced-network"
)
