"""What many Sandboxes ask of a cluster at once is asked once, or a few at a time."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass, field
from http import HTTPMethod
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from orchestrator.backends import naming
from orchestrator.backends.kubernetes_access import Access
from orchestrator.backends.kubernetes_api import Api, jobs
from orchestrator.backends.kubernetes_network import Network
from orchestrator.backends.kubernetes_setting import Claim, ClusterSetting
from orchestrator.backends.kubernetes_warnings import Warnings
from orchestrator.errors import BackendUnavailableError
from orchestrator.sandbox import BrokerAddress, SandboxSpec, User

SECONDS, MANY = 10, 40
Object = dict[str, Any]


@dataclass
class Server:
    """Answers lists with `items`, some of them a page at a time, and takes what is created; after a moment."""

    items: list[Object] = field(default_factory=list)
    asked: Counter[str] = field(default_factory=Counter)
    busy: int = 0
    busiest: int = 0
    status: int = 200

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer on one connection."""
        with suppress(asyncio.IncompleteReadError, OSError), closing(writer):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                length = int(next(line for line in head.splitlines() if line.startswith("Content-Length")).split()[1])
                body = await reader.readexactly(length)
                self.busy += 1
                self.busiest = max(self.busiest, self.busy)
                await asyncio.sleep(0.01)  # the time that a server takes
                answer = json.dumps(self._answer(head, body)).encode()
                self.busy -= 1
                writer.write(b"HTTP/1.1 %d -\r\nContent-Length: %d\r\n\r\n" % (self.status, len(answer)) + answer)

    def _answer(self, head: str, body: bytes) -> Object:
        method, target, _ = head.splitlines()[0].split()
        parts = urlsplit(target)
        query = {name: each[0] for name, each in parse_qs(parts.query).items()}
        self.asked[f"{method} {parts.path.rpartition('/')[2]}"] += 1
        if method == HTTPMethod.POST:
            self.items.append(json.loads(body))
            return self.items[-1]
        first = int(query.get("continue", 0))
        past = first + int(query.get("limit", len(self.items)))
        more = {"continue": f"{past}"} if past < len(self.items) else {}
        return {"metadata": more, "items": self.items[first:past]}


async def _nobody() -> None:
    return None


@asynccontextmanager
async def serving(server: Server) -> AsyncIterator[Api]:
    """Have a server, and give its API."""
    tasks: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.ensure_future(server.serve(reader, writer)))

    listening = await asyncio.start_server(accept, "127.0.0.1", 0)
    api = Api(Access(f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}", None, _nobody))
    try:
        async with asyncio.timeout(SECONDS):
            yield api
    finally:
        api.close()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        listening.close()


def warning(name: str, message: str, second: int = 0) -> Object:
    """Write an event that warns."""
    return {
        "metadata": {"creationTimestamp": f"2026-01-01T00:00:{second:02}Z"},
        "involvedObject": {"kind": "Pod", "name": name},
        "reason": "FailedMount",
        "message": message,
    }


async def test_warnings_are_listed_once_for_all_who_wait() -> None:
    """Each gets those about itself, oldest first, also from later pages."""
    server = Server([warning("s1", "later", 2), *(warning(f"x{number}", "x") for number in range(600))])
    server.items += [warning("s1", "first", 1), warning("s2", "other")]
    async with serving(server) as api:
        warnings = Warnings(api, "n")
        async with asyncio.TaskGroup() as group:
            asking = [group.create_task(warnings.about("s1")) for _ in range(MANY)]
            other = group.create_task(warnings.about("s2"))
            nothing = group.create_task(warnings.about("s3"))
    assert {tuple(event["message"] for event in task.result()) for task in asking} == {("first", "later")}
    assert [event["message"] for event in other.result()] == ["other"]
    assert nothing.result() == []
    assert server.asked == {"GET events": 2}


async def test_where_warnings_cannot_be_had_there_are_none() -> None:
    """Nobody waits for them: what a Pod itself says is enough."""
    async with serving(Server([warning("s1", "unseen")], status=403)) as api:
        assert await Warnings(api, "n").about("s1") == []


def spec(number: int) -> SandboxSpec:
    """Describe a Sandbox of one job."""
    return SandboxSpec(
        name=f"j-s{number}",
        image="i",
        workspace=Path("/claim/ws"),
        state=Path("/claim/state"),
        user=User(1, 1),
        deadline=1,
        labels=naming.labels("j", sandbox=f"j-s{number}", instance="i", deadline=1),
        broker=BrokerAddress(("192.0.2.1",), 5, 6, "p"),
    )


SETTING = ClusterSetting("n", Claim("c", Path("/claim")), ("192.0.2.1",))


async def test_policies_are_listed_once_for_all_who_are_launched_at_once() -> None:
    """Whoever comes while a list is on its way shares the next; the policy is made once."""
    server = Server()
    async with serving(server) as api:
        network = Network(api, SETTING)
        async with asyncio.TaskGroup() as group:
            for number in range(MANY):
                group.create_task(network.close(spec(number)))
        assert server.asked == {"GET networkpolicies": 2, "POST networkpolicies": 1}
        await network.close(spec(MANY))
    assert server.asked == {"GET networkpolicies": 3, "POST networkpolicies": 1}


async def test_a_policy_that_widens_is_seen_by_who_is_launched_after_it() -> None:
    """However many were launched before."""
    server = Server()
    async with serving(server) as api:
        network = Network(api, SETTING)
        await network.close(spec(1))
        server.items.append({"metadata": {"name": "wide"}, "spec": {"policyTypes": ["Egress"], "egress": [{}]}})
        with pytest.raises(BackendUnavailableError, match="NetworkPolicy wide"):
            await network.close(spec(2))


async def test_a_few_requests_at_a_time() -> None:
    """The others wait for their turn; that they do is not counted as the server's slowness."""
    server = Server()
    async with serving(server) as api, asyncio.TaskGroup() as group:

        async def create(number: int) -> None:
            async with api.asked("create a Job", seconds=1.0):
                await api.create(jobs("n"), {"number": number})

        for number in range(10 * MANY):
            group.create_task(create(number))
    assert (server.busiest, len(server.items)) == (16, 10 * MANY)
