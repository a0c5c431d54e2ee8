"""Jobs that a cluster works: what the chart installs, the identity of a submitter, and the command beside it."""

import asyncio
import atexit
import functools
import json
import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.backends.kubernetes_rights import COORDINATOR, SUBMITTER
from orchestrator.coordination.submission import claim_of, instance_on
from tests.support import cluster
from tests.support.cluster import Manifest, Namespace
from tests.support.project import SECONDS, Project

ROOT = Path(__file__).parents[2]
COORDINATOR_ACCOUNT, SUBMITTER_ACCOUNT, SANDBOX_ACCOUNT = "coordinator", "submitter", "sandbox"
PART = "perstack.ai/part"
MANAGED = "app.kubernetes.io/managed-by=perstack-orch"
_ENGINE_SECONDS = 600


@functools.cache
def orchestrator_image() -> str:
    """The image of coordinators: one that is named, else built here; taken to the node where the cluster is ours."""
    image = os.environ.get("PERSTACK_TEST_ORCHESTRATOR_IMAGE", "")
    if not image:
        image = "perstack-orch-test-coordinator"
        built = os.environ | {"PERSTACK_ORCHESTRATOR_IMAGE": image}
        subprocess.run([ROOT / "dev" / "orchestrator-image"], env=built, timeout=_ENGINE_SECONDS, check=True)
    if cluster.is_ours():
        cluster.control("load", image)
    return image


@functools.cache
def tenant() -> str:
    """A namespace in which everything is that the chart installs; gone with the process."""
    name = cluster.made_namespace()
    image = orchestrator_image()
    accounts = [
        _object("v1", "ServiceAccount", each) for each in (COORDINATOR_ACCOUNT, SUBMITTER_ACCOUNT, SANDBOX_ACCOUNT)
    ]
    roles = [
        _object("rbac.authorization.k8s.io/v1", "Role", account, rules=_rules(rights))
        for account, rights in ((COORDINATOR_ACCOUNT, COORDINATOR), (SUBMITTER_ACCOUNT, SUBMITTER))
    ]
    group = "rbac.authorization.k8s.io"
    bindings = [
        _object(
            f"{group}/v1",
            "RoleBinding",
            account,
            roleRef={"apiGroup": group, "kind": "Role", "name": account},
            subjects=[{"kind": "ServiceAccount", "name": account, "namespace": name}],
        )
        for account in (COORDINATOR_ACCOUNT, SUBMITTER_ACCOUNT)
    ]
    cluster.create_in(name, *accounts, *roles, *bindings, installation(image))
    return name


def installation(image: str) -> Manifest:
    """Describe what the chart leaves for who submits jobs."""
    small = {"memory": "256Mi", "cpu": "2", "cpuRequest": "10m", "storage": "512Mi"}
    data = {
        "job.json": json.dumps(_job(image)),
        "pods.json": json.dumps(small | {"serviceAccountName": SANDBOX_ACCOUNT}),
        "claim.json": json.dumps(_claim()),
    }
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "perstack-orch", "labels": {PART: "installation"}},
        "data": data,
    }


def _claim() -> Manifest:
    spec = {"accessModes": ["ReadWriteMany"], "storageClassName": "hostpath"}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {},
        "spec": spec | {"resources": {"requests": {"storage": "1Mi"}}},
    }


def _job(image: str) -> Manifest:
    outside = " ".join(f"[{each}]:80" if ":" in each else f"{each}:80" for each in cluster.outside())
    container = {
        "name": "coordinator",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["perstack-orch"],
        "args": ["coordinate"],
        "env": [
            {"name": "PERSTACK_RUNTIME_IMAGE", "value": cluster.runtime_image()},
            {"name": "PERSTACK_POD_SETTING", "value": "/installation/pods.json"},
            {"name": "PERSTACK_OUTSIDE", "value": outside},
        ],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "512Mi"}},
        "volumeMounts": [
            {"name": "claim", "mountPath": "/claim"},
            {"name": "job", "mountPath": "/job", "readOnly": True},
            {"name": "installation", "mountPath": "/installation", "readOnly": True},
            {"name": "tmp", "mountPath": "/tmp"},
        ],
    }
    pod = {
        "restartPolicy": "Never",
        "serviceAccountName": COORDINATOR_ACCOUNT,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 65532,
            "runAsGroup": 65532,
            "fsGroup": 65532,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": [
            {"name": "claim", "persistentVolumeClaim": {"claimName": ""}},
            {"name": "job", "secret": {"secretName": "", "defaultMode": 0o440}},
            {"name": "installation", "configMap": {"name": "perstack-orch"}},
            {"name": "tmp", "emptyDir": {}},
        ],
    }
    policy = {
        "rules": [
            {
                "action": "FailJob",
                "onExitCodes": {"containerName": "coordinator", "operator": "In", "values": [1, 2, 4]},
            },
            {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        ]
    }
    spec = {"backoffLimit": 6, "podReplacementPolicy": "Failed", "podFailurePolicy": policy}
    owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": "perstack-orch", "uid": ""}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"ownerReferences": [owner]},
        "spec": spec | {"template": {"metadata": {}, "spec": pod}},
    }


def _rules(rights: Mapping[tuple[str, str], tuple[str, ...]]) -> list[Manifest]:
    return [
        {"apiGroups": [group], "resources": [resource], "verbs": list(verbs)}
        for (group, resource), verbs in rights.items()
    ]


def _object(version: str, kind: str, name: str, **rest: Any) -> Manifest:
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name}} | rest


@functools.cache
def _kubeconfig() -> Path:
    """Who submits jobs, and may do nothing else."""
    token = cluster.asked(f"--namespace={tenant()}", "create", "token", SUBMITTER_ACCOUNT, "--duration=6h").strip()
    known = json.loads(cluster.asked("config", "view", "--raw", "--output=json"))
    context = {"cluster": known["clusters"][0]["name"], "user": SUBMITTER_ACCOUNT, "namespace": tenant()}
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": known["clusters"][:1],
        "users": [{"name": SUBMITTER_ACCOUNT, "user": {"token": token}}],
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
