"""Before a Sandbox takes its Run it proves that it reaches its broker and nothing else.

NetworkPolicies take effect some time after a Pod's first code, add up, and are ignored by some clusters. So it is
tried: whatever must be closed has to be silent while the broker answers, in one and the same round, in every family of
addresses. Nothing else of a Sandbox opens a connection before that.
"""

import asyncio
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_address

from orchestrator.runtime.errors import NetworkOpenError

ROUND_SECONDS = 0.1
"""How long nobody may answer who is to be silent; inside a cluster an answer takes a millisecond."""

PATIENCE_SECONDS = 30.0
_PAUSE_SECONDS = 0.02
_ANSWERS_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Target:
    """A port at some addresses."""

    port: int
    hosts: tuple[str, ...]

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
            raise NetworkOpenError(_sentence(open_now, patience))
        await asyncio.sleep(_PAUSE_SECONDS)


async def _round(broker: Target, targets: Iterable[Target]) -> list[tuple[str, int]]:
    """Try everything at once; give what answered. That the broker does shows that silence means something."""
    async with asyncio.TaskGroup() as group:
        answers = [group.create_task(_answers(host, broker.port, _ANSWERS_SECONDS)) for host in broker.hosts]
        tries = {
            (host, target.port): group.create_task(_answers(host, target.port, ROUND_SECONDS))
            for target in targets
            for host in target.hosts
        }
    if not all(answer.result() for answer in answers):
        message = "the broker does not answer"
        raise OSError(message)
    return [where for where, answered in tries.items() if answered.result()]


async def _answers(host: str, port: int, seconds: float) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as attempt:
        attempt.setblocking(False)  # noqa: FBT003 - the standard library's
        try:
            async with asyncio.timeout(seconds):
                await asyncio.get_running_loop().sock_connect(attempt, (host, port))
        except OSError:
            # Silent, or refused by whoever enforces the policy: what is tried is known to listen.
            return False
        return True


def _sentence(answered: Iterable[tuple[str, int]], patience: float) -> str:
    listed = ", ".join(f"{host} port {port}" for host, port in answered)
    return (
        f"its network is open: {listed} can still be reached after {patience:g} s; use a network plugin that enforces"
        " NetworkPolicies, also towards nodes and the API server, or accept it with --allow-unenforced-network"
    )
