"""Jobs that a cluster works: what the chart installs, the identity of a submitter, and the submitter's command."""

import asyncio
import atexit
import functools
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.cluster.client import claim_of, instance_on
from orchestrator.cluster.coordinator_manifest import claim_manifest
from orchestrator.sandbox import naming
from tests.support import chart, cluster
from tests.support.cluster import Manifest, Namespace
from tests.support.processes import command_lines
from tests.support.project import SECONDS, Project, Result
from tests.support.tenant import Tenant, await_policies

SUBMITTER = "laptop"
ENV_SECRET = "keys"
"""A Secret that a submitter may name; no test finds it there."""
SKILL_SECRET = "of-skills"
"""A Secret that an operator may have for skills; the same."""

Event = dict[str, Any]
RUN = ("run", "--backend", "kubernetes")
MANAGED = "app.kubernetes.io/managed-by=perstack-orch"
IMAGES = "perstack-orch-test-"
"""The beginning of all images that --image may name."""


@functools.cache
def tenant() -> str:
    """A namespace with a release of the chart, and a user who may submit jobs; removed with the process."""
    name = cluster.made_namespace()
    cluster.create_in(name, {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": SUBMITTER}})
    chart.upgrade(name, _values(name))
    # Before its namespace: the policies are the cluster's.
    atexit.register(chart.helm, "uninstall", chart.RELEASE, f"--namespace={name}", "--ignore-not-found")
    await_policies(Tenant(name))
    return name


def _values(namespace: str) -> Manifest:
    submitter = {"kind": "ServiceAccount", "name": SUBMITTER, "namespace": namespace}
    own = {"submitters": [submitter], "admissionPolicy": {"envSecrets": [ENV_SECRET], "runtimeImagePrefixes": [IMAGES]}}
    return chart.merged(chart.images(), own)


@contextmanager
def installed(values: Manifest) -> Iterator[None]:
    """Add other values, for jobs that are submitted meanwhile."""
    chart.upgrade(tenant(), chart.merged(_values(tenant()), values))
    try:
        yield
    finally:
        chart.upgrade(tenant(), _values(tenant()))


@functools.cache
def _kubeconfig() -> Path:
    """The user who submits jobs, and may do nothing else."""
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
    atexit.register(file.unlink, missing_ok=True)
    file.write_text(json.dumps(content))
    return file


@dataclass(frozen=True, slots=True)
class Submitter(Project):
    """A project on the laptop of a user who may submit jobs to the tenant's namespace."""

    @classmethod
    def at(cls, directory: Path, toml: str, replies: Mapping[str, Sequence[Any]]) -> "Submitter":
        """Write the files of a project."""
        made = Project.make(directory, "kubernetes", toml, replies)
        return cls(made.directory, made.backend)

    @property
    def in_cluster(self) -> bool:
        """False: unlike other projects on Kubernetes, this one has nothing of the cluster on this machine."""
        return False

    @property
    def environment(self) -> dict[str, str]:
        """What the command finds in its environment."""
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "XDG_STATE_HOME", "LANG") if name in os.environ}
        return kept | {"KUBECONFIG": str(_kubeconfig())}

    async def command(self, *arguments: str, env: Mapping[str, str] | None = None) -> Result:
        """Run any command to its end; one that hangs fails the test with what the cluster shows then."""
        try:
            return await Project.command(self, *arguments, env=env)
        except AssertionError as error:
            error.add_note(await asyncio.to_thread(_state_of_cluster))
            raise


def _state_of_cluster() -> str:
    """Describe the tenant's objects, its latest events, and the ends of its Pods' logs."""
    own = f"--namespace={tenant()}"
    found = [
        cluster.asked(own, "get", "jobs,pods", "--output=wide"),
        cluster.asked(own, "get", "events", "--sort-by=.lastTimestamp"),
        cluster.asked(own, "logs", f"--selector={MANAGED}", "--all-containers", "--prefix", "--tail=20"),
    ]
    return "\n".join(text[-4000:] for text in found)


Make = Callable[[str, Mapping[str, Sequence[Any]]], Submitter]
"""Makes a project of Experts, in TOML, and of replies by Expert, on a user's laptop."""


async def read_until(process: asyncio.subprocess.Process, kind: str, times: int = 1) -> list[Event]:
    """Read events up to one of a type, by default the first."""
    assert process.stdout is not None
    shown: list[Event] = []
    async with asyncio.timeout(SECONDS):
        while [event["type"] for event in shown].count(kind) < times:
            line = await process.stdout.readline()
            assert line, (await process.communicate())[1].decode()
            shown.append(json.loads(line))
    return shown


def events_of(result: Result) -> list[Event]:
    """What a command wrote to stdout."""
    return [json.loads(line) for line in result.stdout.splitlines()]


def is_whole(events: Sequence[Event]) -> bool:
    """Whether no event is missing, twice, or out of order."""
    numbers: dict[tuple[str, int], list[int]] = {}
    for event in events:
        if "seq" in event:
            numbers.setdefault((event["runId"], event["attempt"]), []).append(event["seq"])
    positions = [event["position"] for event in events]
    return positions == list(range(1, len(events) + 1)) and all(
        each == list(range(1, len(each) + 1)) for each in numbers.values()
    )


async def coordinator_of(job: str) -> Manifest:
    """The running Pod of a job's coordinator."""
    wanted = f"--selector=perstack.ai/part=coordinator,perstack.ai/job={job}"
    found = (await objects().read("pods", wanted))["items"]
    return next(pod for pod in found if cluster.runs(pod))


def processes_of(pod: Manifest, program: bytes = b"perstack-orch") -> list[int]:
    """The processes of a Pod that run a program of ours, on its node, which is this machine."""
    uid = pod["metadata"]["uid"]
    return [number for number, command in command_lines() if program in command and uid in _cgroup(number)]


def _cgroup(process: int) -> str:
    try:
        return Path(f"/proc/{process}/cgroup").read_text()
    except OSError:
        return ""


def kubeconfig() -> Path:
    """A user who may do everything."""
    return cluster.kubeconfig()


def objects() -> Namespace:
    """The tenant's namespace, without our client."""
    return Namespace(tenant())


def claimed_for(user: str) -> Path:
    """Make the claim of a user, unless a job of theirs did, and give where its volume is."""
    own = f"--namespace={tenant()}"
    if cluster.asked(own, "get", "pvc", claim_of(user), "--ignore-not-found", "--output=name"):
        return volume_of(user)
    wanted = f"--selector=perstack.ai/part={naming.INSTALLATION}"
    told = json.loads(cluster.asked(own, "get", "configmaps", wanted, "--output=json"))
    template = json.loads(told["items"][0]["data"]["claim.json"])
    labels = {naming.MANAGED_BY: naming.MANAGER, naming.PART: naming.WORKSPACE}
    cluster.create_in(tenant(), claim_manifest(template, claim_of(user), labels, {naming.USER: user}))
    cluster.asked(own, "wait", "--for=jsonpath={.status.phase}=Bound", "--timeout=30s", f"pvc/{claim_of(user)}")
    return volume_of(user)


def sandboxes_left() -> set[str]:
    """Name the Sandboxes of all users that are still there."""
    return set(cluster.sandboxes(tenant())) if tenant.cache_info().currsize else set()


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


async def nothing_left_but(*names: str, of: tuple[str, ...] = ()) -> None:
    """Wait until nothing else is selected; the cluster removes what belongs to a removed object soon after it."""
    found: list[str] = []
    try:
        async with asyncio.timeout(SECONDS):
            while (found := await left(*of)) != sorted(names):  # noqa: ASYNC110 - nothing reports it
                await asyncio.sleep(0.5)
    except TimeoutError:
        raise AssertionError(found) from None
