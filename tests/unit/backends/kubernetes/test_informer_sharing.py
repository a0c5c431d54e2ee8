"""Requests that many Sandboxes need at once are sent once, or a few at a time."""

import asyncio
import json
from collections import Counter
from dataclasses import dataclass, field
from http import HTTPMethod
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from orchestrator.backends.cluster_settings import Claim, ClusterSetting
from orchestrator.backends.kubernetes import informer
from orchestrator.backends.kubernetes.client import jobs
from orchestrator.backends.kubernetes.informer import WarningEvents
from orchestrator.backends.kubernetes.network_policy import JobNetworkPolicies
from orchestrator.errors import BackendUnavailableError
from orchestrator.sandbox import naming
from orchestrator.sandbox.api import BrokerAddress, SandboxSpec, User
from tests.support.api_server import Object, serving

MANY = 40


@dataclass
class Server:
    """Answers lists with `items`, in pages if asked, and stores created objects; each answer takes a moment."""

    items: list[Object] = field(default_factory=list)
    asked: Counter[str] = field(default_factory=Counter)
    busy: int = 0
    busiest: int = 0
    status: int = 200

    async def answer(self, method: str, target: str, body: bytes) -> tuple[int, Object]:
        """Answer one request."""
        self.busy += 1
        self.busiest = max(self.busiest, self.busy)
        await asyncio.sleep(0.01)  # the time that a server takes
        self.busy -= 1
        return self.status, self._answer(method, target, body)

    def _answer(self, method: str, target: str, body: bytes) -> Object:
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


def warning(name: str, message: str, second: int = 0) -> Object:
    """Return an event of type Warning."""
    return {
        "metadata": {"creationTimestamp": f"2026-01-01T00:00:{second:02}Z"},
        "involvedObject": {"kind": "Pod", "name": name},
        "reason": "FailedMount",
        "message": message,
    }


async def test_warnings_are_listed_once_for_all_waiting_sandboxes() -> None:
    """Each Sandbox gets the warnings about itself, oldest first, also from later pages."""
    server = Server([warning("s1", "later", 2), *(warning(f"x{number}", "x") for number in range(600))])
    server.items += [warning("s1", "first", 1), warning("s2", "other")]
    async with serving(server.answer) as api:
        warnings = WarningEvents(api, "n")
        async with asyncio.TaskGroup() as group:
            asking = [group.create_task(warnings.about("s1")) for _ in range(MANY)]
            other = group.create_task(warnings.about("s2"))
            nothing = group.create_task(warnings.about("s3"))
    assert {tuple(event["message"] for event in task.result()) for task in asking} == {("first", "later")}
    assert [event["message"] for event in other.result()] == ["other"]
    assert nothing.result() == []
    assert server.asked == {"GET events": 2}


async def test_where_warnings_cannot_be_had_there_are_none() -> None:
    """Without the right to list events no warnings are shown: the Pod's own state is enough."""
    async with serving(Server([warning("s1", "unseen")], status=403).answer) as api:
        assert await WarningEvents(api, "n").about("s1") == []


async def test_warnings_that_never_come_are_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page that does not arrive in time is given up; warnings of earlier pages are kept."""
    monkeypatch.setattr(informer, "ANSWER_SECONDS", 0.05)
    server = Server([warning("s1", "seen"), *(warning(f"x{number}", "x") for number in range(600))])

    async def answer(method: str, target: str, body: bytes) -> tuple[int, Object]:
        if "continue" in target:
            await asyncio.Event().wait()
        return await server.answer(method, target, body)

    async with serving(answer) as api:
        assert [event["message"] for event in await WarningEvents(api, "n").about("s1")] == ["seen"]


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


async def test_policies_are_listed_once_for_launches_at_the_same_time() -> None:
    """A call during a list shares the next list; the policy is created once."""
    server = Server()
    async with serving(server.answer) as api:
        network = JobNetworkPolicies(api, SETTING)
        async with asyncio.TaskGroup() as group:
            for number in range(MANY):
                group.create_task(network.ensure_policy(spec(number)))
        assert server.asked == {"GET networkpolicies": 2, "POST networkpolicies": 1}
        await network.ensure_policy(spec(MANY))
    assert server.asked == {"GET networkpolicies": 3, "POST networkpolicies": 1}


async def test_a_policy_that_widens_is_seen_by_later_launches() -> None:
    """The next launch lists the policies again, however many were launched before."""
    server = Server()
    async with serving(server.answer) as api:
        network = JobNetworkPolicies(api, SETTING)
        await network.ensure_policy(spec(1))
        server.items.append({"metadata": {"name": "wide"}, "spec": {"policyTypes": ["Egress"], "egress": [{}]}})
        with pytest.raises(BackendUnavailableError, match="NetworkPolicy wide"):
            await network.ensure_policy(spec(2))


async def test_a_few_requests_at_a_time() -> None:
    """Other requests wait for their turn, which does not count against their time limit."""
    server = Server()
    async with serving(server.answer) as api, asyncio.TaskGroup() as group:

        async def create(number: int) -> None:
            async with api.translating_errors("create a Job", seconds=1.0):
                await api.create(jobs("n"), {"number": number})

        for number in range(10 * MANY):
            group.create_task(create(number))
    assert (server.busiest, len(server.items)) == (16, 10 * MANY)
