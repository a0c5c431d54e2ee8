"""Jobs that a cluster works: what the chart installs, the identity of a submitter, and the command beside it."""

import asyncio
import atexit
import functools
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.coordination.submission import claim_of, instance_on
from tests.support import chart, cluster
from tests.support.cluster import Namespace
from tests.support.project import SECONDS, Project
from tests.support.tenant import Tenant, await_policies

SUBMITTER = "laptop"
MANAGED = "app.kubernetes.io/managed-by=perstack-orch"


@functools.cache
def tenant() -> str:
    """A namespace with a release of the chart, and somebody who may submit jobs; gone with the process."""
    name = cluster.made_namespace()
    submitter = {"kind": "ServiceAccount", "name": SUBMITTER, "namespace": name}
    cluster.create_in(name, {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": SUBMITTER}})
    chart.upgrade(name, chart.merged(chart.images(), {"submitters": [submitter]}))
    # Before its namespace: the policies are the cluster's.
    atexit.register(chart.helm, "uninstall", chart.RELEASE, f"--namespace={name}", "--ignore-not-found")
    await_policies(Tenant(name))
    return name


@functools.cache
def _kubeconfig() -> Path:
    """Who submits jobs, and may do nothing else."""
    token = cluster.asked(f"--namespace={tenant()}", "create", "token", SUBMITTER, "--duration=6h").strip()
    known = json.loads(cluster.asked("config", "view", "--raw", "--output=json"))
    context = {"cluster": known["clusters"][0]["name"], "user": SUBMITTER, "namespace": tenant()}
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": known["clusters"][:1],
        "users": [{"name": SUBMITTER, "user": {"token": token}}],
        "contexts": [{"name": "tenant", "context": context}],
        "current-context": "tenant",
    }
    file = Path(tempfile.mkstemp(prefix="perstack-test-", suffix=".kubeconfig")[1])
    atexit.register(file.unlink)
    file.write_text(json.dumps(content))
    return file


@dataclass(frozen=True, slots=True)
class Submitter(Project):
    """A project on the laptop of somebody who may submit jobs to the tenant's namespace."""

    @classmethod
    def at(cls, directory: Path, toml: str, replies: Mapping[str, Sequence[Any]]) -> "Submitter":
        """Write the files of a project."""
        made = Project.make(directory, "kubernetes", toml, replies)
        return cls(made.directory, made.backend)

    @property
    def in_cluster(self) -> bool:
        """Not as others mean it: nothing of the cluster's is here."""
        return False

    @property
    def environment(self) -> dict[str, str]:
        """What the command finds in its environment."""
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        return kept | {"KUBECONFIG": str(_kubeconfig())}


def kubeconfig() -> Path:
    """Somebody who may do everything."""
    return cluster.kubeconfig()


def objects() -> Namespace:
    """The tenant's namespace, by another way than ours."""
    return Namespace(tenant())


def volume_of(user: str | None) -> Path:
    """Where the volume of a user's claim is on the node, which is this machine."""
    volume = cluster.asked(
        f"--namespace={tenant()}", "get", "pvc", claim_of(user), "--output=jsonpath={.spec.volumeName}"
    )
    return Path(cluster.asked("get", "pv", volume, "--output=jsonpath={.spec.hostPath.path}{.spec.local.path}"))


def instance_of(user: str | None) -> str:
    """What Sandboxes of a user's jobs are labelled with."""
    return instance_on(tenant(), claim_of(user))


async def left(*selectors: str) -> list[str]:
    """Name everything in the namespace that carries our label, of every kind that can be listed."""
    kinds = (await objects().kubectl("api-resources", "--verbs=list", "--namespaced", "--output=name")).split()
    wanted = ",".join((MANAGED, *selectors))
    listed = await objects().kubectl(
        "get", ",".join(kinds), f"--selector={wanted}", "--output=name", "--ignore-not-found"
    )
    return sorted(set(listed.split()))


async def nothing_left_but(*names: str) -> None:
    """Wait until that is all there is; what is owned by something that is gone goes soon after."""
    found: list[str] = []
    try:
        async with asyncio.timeout(SECONDS):
            while (found := await left()) != sorted(names):  # noqa: ASYNC110 - the cluster tells nobody
                await asyncio.sleep(0.5)
    except TimeoutError:
        raise AssertionError(found) from None
