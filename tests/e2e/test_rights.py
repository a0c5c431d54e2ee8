"""What each account requested from the API server is exactly what the chart's Roles grant, when everything happens."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from orchestrator.backends.kubernetes.preflight import COORDINATOR, SUBMITTER
from tests.support import cluster, production
from tests.support.chart import FULLNAME
from tests.support.cluster import PATIENCE
from tests.support.cluster_jobs import command
from tests.support.production import Submitter, objects, volume_of
from tests.support.project import TEAM, ask, ended, say, use

pytestmark = [
    pytest.mark.kubernetes,
    pytest.mark.helm,
    pytest.mark.skipif(not cluster.is_ours(), reason="the audit log of a cluster that was named is not here"),
]

COORDINATOR_ACCOUNT = f"{FULLNAME}-coordinator"
UNTIL_TOLD = "import os, time\nwhile not os.path.exists('{name}'): time.sleep(0.1)"
Asked = set[tuple[str, str, str]]
"""API group, resource and verb."""

NEWER = ("", "pods/portforward", "create")
"""What a WebSocket takes from Kubernetes 1.35 on; before that it is a `get` alone."""


def asked_by(account: str) -> Asked:
    """Return what an account of the tenant requested in its namespace, whatever the answer was."""
    user = f"system:serviceaccount:{objects().name}:{account}"
    asked: Asked = set()
    for line in (cluster.directory() / "log" / "audit.log").read_text().splitlines():
        event = json.loads(line)
        about = event.get("objectRef", {})
        if event["user"]["username"] == user and about.get("namespace") == objects().name:
            resource = "/".join(filter(None, (about["resource"], about.get("subresource"))))
            asked.add((about.get("apiGroup", ""), resource, event["verb"]))
    return asked


def granted(rights: Mapping[tuple[str, str], tuple[str, ...]]) -> Asked:
    """Give the same for what is granted."""
    return {(group, resource, verb) for (group, resource), verbs in rights.items() for verb in verbs}


@asynccontextmanager
async def room(pods: int) -> AsyncIterator[None]:
    """Have the namespace take no more Pods than these."""
    spec = {"hard": {"pods": str(pods)}}
    await objects().create({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "few"}, "spec": spec})
    try:
        await objects().until(lambda found: "hard" in found.get("status", {}), "resourcequota", "few")
        yield
    finally:
        await objects().kubectl("delete", "resourcequota", "few")


async def until_asked(account: str, *what: str) -> None:
    """Wait until an account requested something."""
    async with asyncio.timeout(PATIENCE):
        while what not in asked_by(account):  # noqa: ASYNC110 - nothing reports it
            await asyncio.sleep(0.2)


async def test_each_account_asks_for_all_that_it_may_and_for_nothing_else(tmp_path: Path) -> None:
    """A job finds no room; another waits, a user changes its policy, its coordinator goes; all is pruned.

    A right that was never used is one too many; a request that was refused shows one too few.
    """
    replies = {
        "boss": [use(command(UNTIL_TOLD.format(name="ask"))), use(ask("left", "go")), say("done")],
        "left": [use(command(UNTIL_TOLD.format(name="answer"))), say("left")],
    }
    made = Submitter.at(tmp_path / "project", TEAM, replies)
    run = ("run", "--backend", "kubernetes", "--user", "rights")
    async with room(0):
        waited = await made.command(*run, "--start-timeout", "5", "boss", "go")
    assert waited.code == 3, waited.stderr
    async with room(1):
        process = await made.start(*run, "--job-id", "rights", "--prewarm", "off", "boss", "go")
        await until_asked(COORDINATOR_ACCOUNT, "", "events", "list")
    await objects().until(cluster.runs, "pods", "--selector=perstack.ai/job=rights,perstack.ai/sandbox")
    (policy,) = (await objects().read("networkpolicies", "--selector=perstack.ai/job=rights"))["items"]
    changed = json.dumps({"spec": {"ingress": [{"from": [{"podSelector": {"matchLabels": {"no": "body"}}}]}]}})
    await objects().kubectl("patch", "networkpolicy", policy["metadata"]["name"], "--type=merge", f"--patch={changed}")
    (volume_of("rights") / "ws" / "ask").touch()
    await until_asked(COORDINATOR_ACCOUNT, "networking.k8s.io", "networkpolicies", "update")
    coordinator = "--selector=perstack.ai/job=rights,perstack.ai/part=coordinator"
    await objects().kubectl("delete", "pods", coordinator, "--wait=false")
    (volume_of("rights") / "ws" / "answer").touch()
    result = await ended(process)
    assert result.code == 0, result.stderr
    assert (await made.command("watch", "--user", "rights", "rights")).code == 0
    pruned = await made.command("prune", "--backend", "kubernetes")
    assert pruned.code == 0, pruned.stderr
    assert asked_by(COORDINATOR_ACCOUNT) == granted(COORDINATOR)
    assert asked_by(production.SUBMITTER) | {NEWER} == granted(SUBMITTER)
    assert asked_by(f"{FULLNAME}-sandbox") == set()
