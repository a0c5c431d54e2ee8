"""A Kubernetes cluster for tests: the one that KUBECONFIG names, else that of dev/cluster; a namespace for each test.

The tests call it with `kubectl`, so that they do not depend on our client.
"""

import asyncio
import atexit
import contextlib
import functools
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from orchestrator.backends.cluster_settings import Claim as Claim  # noqa: PLC0414 - for those who use it here
from tests.support import engine

Manifest = dict[str, Any]

PATIENCE = 60.0
"""Seconds after which a change that the cluster has not made counts as never made."""

_LINE = 2**21
"""Bytes; an object is at most 1.5 MiB."""

_SCRIPT = Path(__file__).parents[2] / "dev" / "cluster"


def directory() -> Path:
    """Where dev/cluster keeps its binaries, state and logs."""
    return Path(os.environ.get("PERSTACK_CLUSTER_DIR") or "/var/lib/perstack-cluster")


def kubeconfig() -> Path:
    """The file with which to call the cluster."""
    return Path(os.environ.get("KUBECONFIG") or directory() / "kubeconfig")


def is_ours() -> bool:
    """Whether dev/cluster made it: only such a cluster may be attacked, restarted or starved."""
    return kubeconfig() == directory() / "kubeconfig"


def answers() -> bool:
    """Whether a cluster can be used."""
    return kubeconfig().exists() and _run("get", "--raw", "/readyz").returncode == 0


@functools.cache
def runtime_image() -> str:
    """The tests' image on the node; our own cluster gets it from the engine."""
    if not is_ours():
        return os.environ["PERSTACK_TEST_CLUSTER_IMAGE"]  # one that the named cluster can pull
    image = engine.shared_image()
    control("load", image)
    return image


def outside() -> list[str]:
    """Addresses beyond the cluster that answer on port 80, one of each family that Pods have."""
    if not is_ours():
        return os.environ["PERSTACK_TEST_OUTSIDE"].split()
    told = _run("get", "configmap", "--namespace=kube-public", "perstack-cluster", "--output=jsonpath={.data.outside}")
    return told.stdout.split()


@functools.cache
def shared_namespace() -> str:
    """A namespace for all tests of this process that leave nothing in it; removed with the process."""
    return made_namespace()


def made_namespace() -> str:
    """Make a namespace that admits restricted Pods only; it is removed with this process."""
    name = f"perstack-test-{uuid.uuid4().hex[:12]}"
    _made("create", "namespace", name)
    atexit.register(_run, "delete", "namespace", name, "--wait=false")
    _made("label", "namespace", name, "pod-security.kubernetes.io/enforce=restricted")
    _made(f"--namespace={name}", "wait", "--for=create", "--timeout=30s", "serviceaccount/default")
    return name


def create_in(namespace: str, *manifests: Manifest) -> None:
    """Make objects in a namespace."""
    objects = {"apiVersion": "v1", "kind": "List", "items": manifests}
    _made(f"--namespace={namespace}", "create", "--filename=-", stdin=json.dumps(objects))


def asked(*arguments: str) -> str:
    """Give what the cluster answers."""
    return _made(*arguments)


@functools.cache
def shared_claim() -> Claim:
    """A claim for tests that use only their own directory on it."""
    return claimed("shared")


def claimed(name: str, storage_class: str = "hostpath") -> Claim:
    """Make a claim in the shared namespace; the node is this machine, so its volume is a directory here."""
    wanted = {"accessModes": ["ReadWriteMany"], "storageClassName": storage_class}
    spec = wanted | {"resources": {"requests": {"storage": "1Mi"}}}
    made = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": spec}
    own = f"--namespace={shared_namespace()}"
    _made(own, "create", "--filename=-", stdin=json.dumps(made))
    _made(own, "wait", "--for=jsonpath={.status.phase}=Bound", "--timeout=30s", f"pvc/{name}")
    volume = _made(own, "get", "pvc", name, "--output=jsonpath={.spec.volumeName}")
    where = "jsonpath={.spec.hostPath.path}{.spec.local.path}"
    return Claim(name, Path(_made("get", "pv", volume, f"--output={where}")))


@functools.cache
def claim_of(project: Path) -> Claim:
    """The claim that is a project's own."""
    return claimed(f"project-{hashlib.sha256(str(project).encode()).hexdigest()[:12]}")


@functools.cache
def node_addresses() -> tuple[str, ...]:
    """Where Pods reach this machine, which is the node: an address of each family."""
    listed = _made("get", "nodes", "--output=jsonpath={.items[0].status.addresses[?(@.type=='InternalIP')].address}")
    return tuple(listed.split())


def environment(claim: Claim) -> dict[str, str]:
    """The variables with which the command line runs Sandboxes that use a claim."""
    return {
        "KUBECONFIG": str(kubeconfig()),
        "PERSTACK_COORDINATOR": "local",
        "PERSTACK_NAMESPACE": shared_namespace(),
        "PERSTACK_CLAIM": claim.name,
        "PERSTACK_CLAIM_MOUNT": str(claim.root),
        "PERSTACK_BROKER_ADDRESS": " ".join(node_addresses()),
        "PERSTACK_OUTSIDE": " ".join(f"[{each}]:80" if ":" in each else f"{each}:80" for each in outside()),
        "PERSTACK_RUNTIME_IMAGE": runtime_image(),
        "PERSTACK_POD_SETTING": str(_small_pods()),
    }


def left() -> set[str]:
    """List what tests have left in the shared namespace, and on its claims, except workspaces and packages."""
    if not shared_namespace.cache_info().currsize:
        return set()
    own = f"--namespace={shared_namespace()}"
    found: list[Manifest] = json.loads(_made(own, "get", "jobs,pods,networkpolicies", "--output=json"))["items"]
    there = [each for each in found if each["kind"] != "Pod" or not _has_ended(each["status"])]
    volumes = json.loads(_made("get", "pv", "--output=json"))["items"]
    mine = [each["spec"] for each in volumes if each["spec"]["claimRef"]["namespace"] == shared_namespace()]
    directories = [path for spec in mine for path in (Path(spec["hostPath"]["path"]) / "state").glob("*")]
    return {f"{each['kind']} {each['metadata']['name']}" for each in there} | set(map(str, directories))


@functools.cache
def _small_pods() -> Path:
    """Settings under which many Pods fit on one small node."""
    directory = Path(tempfile.mkdtemp(prefix="perstack-test-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    path = directory / "pod.json"
    path.write_text(json.dumps({"memory": "256Mi", "cpu": "2", "cpuRequest": "10m", "storage": "512Mi"}))
    return path


def force_delete(instance: str) -> None:
    """Delete the Pods of an instance at once, as happens to those of a node that is gone."""
    own = (f"--namespace={shared_namespace()}", f"--selector=perstack.ai/instance={instance}")
    _made("delete", "pods", *own, "--force", "--grace-period=0", "--wait=false")


def writes_about(name: str) -> list[tuple[str, str]]:
    """List what was written about objects of this name, as verb and kind, from the audit log of our own cluster."""
    return [(verb, kind) for verb, kind, about in _writes() if about == name]


def writes_for(job: str) -> int:
    """Count what was written about objects of a job of this name."""
    return len([about for _, _, about in _writes() if about.startswith(f"{job}-")])


def _writes() -> Iterator[tuple[str, str, str]]:
    for line in (directory() / "log" / "audit.log").read_text().splitlines():
        event = json.loads(line)
        about = event.get("objectRef", {})
        written = event["verb"] in {"create", "update", "patch", "delete", "deletecollection"}
        if written and "dryRun" not in event["requestURI"]:
            yield event["verb"], about["resource"], about.get("name", "")


def sandboxes(namespace: str, instance: str | None = None) -> list[str]:
    """Name the Jobs of an instance, or of all, and the Pods of which anything still runs."""
    wanted = "perstack.ai/instance" if instance is None else f"perstack.ai/instance={instance}"
    own = (f"--namespace={namespace}", "get", f"--selector={wanted}", "--output=json")
    found: list[Manifest] = json.loads(_made(*own, "jobs,pods"))["items"]
    left = [each for each in found if each["kind"] == "Job" or not _has_ended(each["status"])]
    return [f"{each['kind']} {each['metadata']['name']}" for each in left]


def control(*arguments: str) -> None:
    """Have dev/cluster do something to its own cluster: `restart kubelet`, `netpol off`."""
    assert is_ours(), "a cluster that was named is left as it is"
    done = subprocess.run([_SCRIPT, *arguments], capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr


@dataclass(frozen=True)
class Namespace:
    """One namespace of the cluster, which admits restricted Pods only."""

    name: str

    async def kubectl(self, *arguments: str, stdin: str = "") -> str:
        """Run kubectl, in this namespace unless another is given, and return its output."""
        async with self._asking("--request-timeout=50s", *arguments) as process, asyncio.timeout(PATIENCE):
            stdout, stderr = await process.communicate(stdin.encode())
        assert process.returncode == 0, stderr.decode()
        return stdout.decode()

    async def create(self, *manifests: Manifest) -> None:
        """Make objects."""
        objects = {"apiVersion": "v1", "kind": "List", "items": manifests}
        await self.kubectl("create", "--filename=-", stdin=json.dumps(objects))

    async def read(self, *what: str) -> Manifest:
        """Return an object, or a list of several: `pod`, `NAME`."""
        found: Manifest = json.loads(await self.kubectl("get", "--output=json", *what))
        return found

    async def until(self, holds: Callable[[Manifest], bool], *what: str) -> Manifest:
        """Watch an object, or several, until one meets the condition, and return that one."""
        last: Manifest = {}
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE), contextlib.aclosing(self.watch(*what)) as objects:
                async for last in objects:
                    if holds(last):
                        return last
        pytest.fail(f"{' '.join(what)} in {self.name} stays so: {json.dumps(last, indent=1)}")

    async def watch(self, *what: str) -> AsyncGenerator[Manifest]:
        """Yield an object, or several, as they are and whenever they change."""
        async with self._asking("get", "--watch", "--output=jsonpath={@}{'\\n'}", *what) as process:
            assert process.stdout is not None
            async for line in process.stdout:
                yield json.loads(line)
            _, stderr = await process.communicate()
        pytest.fail(f"the watch of {' '.join(what)} ended: {stderr.decode()}")

    async def log_of(self, pod: str) -> str:
        """Return all output of a Pod, once it has ended."""
        await self.until(lambda found: found["status"].get("phase") in {"Succeeded", "Failed"}, "pod", pod)
        return await self.kubectl("logs", pod)

    @asynccontextmanager
    async def _asking(self, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
        pipe = asyncio.subprocess.PIPE
        asking = command(f"--namespace={self.name}", *arguments)
        process = await asyncio.create_subprocess_exec(*asking, stdin=pipe, stdout=pipe, stderr=pipe, limit=_LINE)
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()


@asynccontextmanager
async def namespace() -> AsyncIterator[Namespace]:
    """Make a namespace, and delete it with all that is in it; the cluster finishes that by itself."""
    made = Namespace(f"perstack-test-{uuid.uuid4().hex[:12]}")
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    await made.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": made.name, "labels": labels}})
    try:
        # Pods are refused before their namespace has its account.
        await made.kubectl("wait", "--for=create", "--timeout=30s", "serviceaccount/default")
        yield made
    finally:
        await made.kubectl("delete", "namespace", made.name, "--wait=false")


def allow_dns(*protocols: str) -> Manifest:
    """Describe the policy that many namespaces have: every Pod may resolve names, by default over UDP and TCP."""
    ports = [{"protocol": protocol, "port": 53} for protocol in protocols or ("UDP", "TCP")]
    spec = {"podSelector": {}, "policyTypes": ["Egress"], "egress": [{"ports": ports}]}
    metadata = {"name": "allow-dns"}
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata, "spec": spec}


def pod(name: str, program: str, *, spec: Manifest | None = None, labels: Manifest | None = None) -> Manifest:
    """Describe a restricted Pod that runs a Python program; `spec` adds to its spec."""
    metadata = {"name": name, "labels": labels or {}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata} | template(program, spec=spec)


def template(program: str, *, spec: Manifest | None = None) -> Manifest:
    """Describe what a restricted Pod is made from; a volume of `spec` named `v` is at /v."""
    added = spec or {}
    container = {
        "name": "main",
        "image": runtime_image(),
        "command": ["/opt/perstack/bin/python", "-I", "-c", program],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
        "volumeMounts": [{"name": name, "mountPath": f"/{name}"} for name in _names(added.get("volumes", []))],
    }
    user = {"runAsNonRoot": True, "runAsUser": 65532, "runAsGroup": 65532, "seccompProfile": {"type": "RuntimeDefault"}}
    made = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 1,
        "containers": [container],
    }
    return {"spec": made | added | {"securityContext": user | added.get("securityContext", {})}}


def _names(volumes: list[Manifest]) -> list[str]:
    return [volume["name"] for volume in volumes]


def command(*arguments: str) -> list[str]:
    """The command line with which to call this cluster."""
    built = directory() / "bin" / "kubectl"
    program = str(built) if built.exists() else shutil.which("kubectl") or "kubectl"
    return [program, f"--kubeconfig={kubeconfig()}", *arguments]


def runs(pod: Manifest) -> bool:
    """Whether a Pod runs."""
    return bool(pod["status"].get("phase") == "Running")


def _has_ended(status: Manifest) -> bool:
    # The kubelet reports that a container ended before it reports that of its Pod.
    states = [each["state"] for each in status.get("containerStatuses", [])]
    return status.get("phase") in {"Succeeded", "Failed"} or any("terminated" in state for state in states)


def _made(*arguments: str, stdin: str | None = None) -> str:
    done = _run(*arguments, stdin=stdin)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _run(*arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command(*arguments), input=stdin, capture_output=True, text=True, timeout=60, check=False)
    except FileNotFoundError:
        return subprocess.CompletedProcess(arguments, 127, "", "")
