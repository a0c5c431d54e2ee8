"""Waiting until no deleted Pod runs any longer."""

import asyncio
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

import pytest

from orchestrator.backends.cluster_settings import Owner
from orchestrator.backends.kubernetes.client import KubernetesClient, selector
from orchestrator.cluster import cleanup
from orchestrator.cluster.cleanup import wait_until_gone
from orchestrator.cluster.client import ClusterClient, claim_of, instance_on
from orchestrator.cluster.installation import Installation
from orchestrator.errors import BackendError
from orchestrator.sandbox import naming
from tests.support.api_server import Object, serving


def pod(labels: dict[str, str], phase: str = "Running") -> Object:
    """Return a Pod."""
    return {"metadata": {"name": "p", "labels": labels}, "status": {"phase": phase}}


def sandbox(job: str, user: str) -> dict[str, str]:
    """Return the labels of a Sandbox's Pod."""
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


def place(api: KubernetesClient) -> ClusterClient:
    """Return the place of user u1's jobs."""
    return ClusterClient(api, Installation("r", "n", {}, {}), "u1", ())


async def test_a_job_is_gone_with_its_sandboxes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sandboxes are waited for even while the coordinator has no running Pod: the cluster deletes them later."""
    monkeypatch.setattr(cleanup, "_POLL_SECONDS", 0.01)
    server = Server([pod(sandbox("j", "u1")), pod({naming.CONTROLLED_BY: "uid"}, "Failed")])
    async with serving(server.answer) as api:
        await wait_until_gone(place(api), [Owner("j-c1", "uid")])
        waiting = asyncio.ensure_future(wait_until_gone(place(api), [Owner("j-c1", "uid")], "j"))
        await asyncio.wait([waiting], timeout=0.2)
        assert not waiting.done()
        server.pods.clear()
        await waiting


async def test_others_are_not_waited_for() -> None:
    """Other jobs of the user, another user's job of the same id, and readers do not count."""
    reader = naming.coordinator_labels("j", claim_of("u1"), naming.READER)
    server = Server([pod(sandbox("k", "u1")), pod(sandbox("j", "u2")), pod(reader)])
    async with serving(server.answer) as api:
        await wait_until_gone(place(api), [Owner("j-c1", "uid")], "j")


async def test_an_object_that_does_not_end_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a time limit the error names what still runs."""
    monkeypatch.setattr(cleanup, "_TIMEOUT_SECONDS", 0.1)
    async with serving(Server([pod(sandbox("j", "u1"))]).answer) as api:
        with pytest.raises(BackendError, match="Pods of Sandboxes of job 'j' may still run"):
            await wait_until_gone(place(api), [Owner("j-c1", "uid")], "j")
