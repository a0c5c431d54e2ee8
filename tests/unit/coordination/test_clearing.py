"""Waiting until nothing of what was deleted runs any more."""

import asyncio
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

import pytest

from orchestrator.backends import naming
from orchestrator.backends.kubernetes_api import Api, selector
from orchestrator.backends.kubernetes_installation import Installation
from orchestrator.backends.kubernetes_setting import Owner
from orchestrator.coordination import clearing
from orchestrator.coordination.clearing import gone
from orchestrator.coordination.submission import Place, claim_of, instance_on
from orchestrator.errors import BackendError
from tests.support.api_server import Object, serving


def pod(labels: dict[str, str], phase: str = "Running") -> Object:
    """Write a Pod."""
    return {"metadata": {"name": "p", "labels": labels}, "status": {"phase": phase}}


def sandbox(job: str, user: str) -> dict[str, str]:
    """The labels of a Sandbox's Pod."""
    labels = naming.labels(job, sandbox=f"{job}-s1", instance=instance_on("n", claim_of(user)), deadline=1)
    return labels | naming.claim_labels(claim_of(user))


@dataclass
class Server:
    """Lists Pods by their labels."""

    pods: list[Object] = field(default_factory=list)

    async def answer(self, _method: str, target: str, _body: bytes) -> tuple[int, Object]:
        """Answer one request."""
        wanted = set(parse_qs(urlsplit(target).query)["labelSelector"][0].split(","))
        items = [each for each in self.pods if wanted <= set(selector(each["metadata"]["labels"]).split(","))]
        return 200, {"items": items}


def place(api: Api) -> Place:
    """Where the jobs of u1 are."""
    return Place(api, Installation("r", "n", {}, {}), "u1", ())


async def test_a_job_is_gone_with_its_sandboxes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two Pods of a coordinator there is none, and Sandboxes work on until the cluster has collected them."""
    monkeypatch.setattr(clearing, "_LOOK_SECONDS", 0.01)
    server = Server([pod(sandbox("j", "u1")), pod({naming.CONTROLLED_BY: "uid"}, "Failed")])
    async with serving(server.answer) as api:
        await gone(place(api), [Owner("j-c1", "uid")])
        waiting = asyncio.ensure_future(gone(place(api), [Owner("j-c1", "uid")], "j"))
        await asyncio.wait([waiting], timeout=0.2)
        assert not waiting.done()
        server.pods.clear()
        await waiting


async def test_others_are_not_waited_for() -> None:
    """Neither other jobs of the user, nor that of another user who calls it alike, nor who reads its records."""
    reader = naming.coordinator_labels("j", claim_of("u1"), naming.READER)
    server = Server([pod(sandbox("k", "u1")), pod(sandbox("j", "u2")), pod(reader)])
    async with serving(server.answer) as api:
        await gone(place(api), [Owner("j-c1", "uid")], "j")


async def test_what_does_not_end_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """By name, after a while."""
    monkeypatch.setattr(clearing, "_LONGEST_SECONDS", 0.1)
    async with serving(Server([pod(sandbox("j", "u1"))]).answer) as api:
        with pytest.raises(BackendError, match="Pods of Sandboxes of job 'j' may still run"):
            await gone(place(api), [Owner("j-c1", "uid")], "j")
