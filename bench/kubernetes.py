"""What a Run costs as a Kubernetes Job, against a bare Job with the same volumes.

Takes the cluster that KUBECONFIG names, else that of `make cluster`; its node must be this machine.
"""

import asyncio
import itertools
import json
import os
import pty
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from bench.measure import Figures, interleave, table
from bench.section import Section, Target
from orchestrator.backends.cluster_settings import ClusterSetting
from orchestrator.backends.kubernetes import client
from orchestrator.backends.kubernetes.auth import find_credentials
from orchestrator.backends.kubernetes.client import KubernetesClient
from orchestrator.backends.kubernetes.manifest import kube_job
from orchestrator.cli.cluster_options import read_pod_setting
from orchestrator.http.errors import StatusError
from orchestrator.sandbox import naming
from orchestrator.sandbox.api import BrokerAddress, SandboxSpec, User
from tests.support import cluster
from tests.support.cluster import Claim

COMMAND = str(Path(sys.executable).with_name("perstack-orch"))
BARE, COLD = "bare Job", "`perstack-orch run`, cold, to the first event"
UNENFORCED = "the same without waiting for a policy"
OVER, P50, WRITES = 0.3, 0.05, 6
HOPS = 12
_LOOK_SECONDS = 0.01
_MODEL_MS = 2500
"""How long a model call lasts while hops are measured: long enough for a Pod to be warm."""

_BARE_SECONDS = 60
_NOWHERE = BrokerAddress(("127.0.0.1",), 1, 1, "")

ONE = '[provider]\nproviderName = "scripted"\n[experts.one]\ninstruction = "Do it."\n'
TEAM = """[provider]
providerName = "scripted"
[experts.boss]
instruction = "Lead."
delegates = ["left"]
[experts.left]
instruction = "Do it."
"""


def kubernetes(directory: Path, rounds: int) -> Section:
    """Measure."""
    claim = cluster.shared_claim()
    project = directory / "kubernetes"
    write(project, ONE, {"one": [{"text": "done"}]})
    first_event(project, claim)  # makes the workspace
    figures = interleave(
        {
            BARE: lambda: bare(claim),
            COLD: lambda: first_event(project, claim),
            "bare Job, without `kubectl`": lambda: asyncio.run(by_api(claim)),
            UNENFORCED: lambda: first_event(project, claim, "--allow-unenforced-network"),
        },
        rounds,
    )
    hops, writes = delegations(project, claim)
    p50, p95 = hops.percentile(0.5), hops.percentile(0.95)
    text = (
        f"{table(figures, BARE)}\n\nThe bare Job is that of a Sandbox, image, volumes and limits, with a program that "
        "prints one line; it is made by `kubectl` as the Run is by our command. A Run waits until the NetworkPolicy is "
        "in force for its Pod: what it takes less without waiting is the network's latency.\n\nHops to a delegate "
        f"whose Pod is warm, over TLS: p50 {p50 * 1000:.0f} ms, p95 {p95 * 1000:.0f} ms ({len(hops.seconds)} hops), "
        f"{p50 / figures[BARE].median:.3f} of a bare Job. Writes to the API for each Run, from the API server's audit "
        f"log: {writes:.1f}."
    )
    over = figures[UNENFORCED].median - figures[BARE].median
    return Section(
        "Kubernetes",
        text,
        (
            Target("Run on Kubernetes, cold", "bare Job + 300 ms + policy", f"+ {over * 1000:.0f} ms", over <= OVER),
            Target("hop on Kubernetes, prewarmed", "p50 ≤ 50 ms", f"{p50 * 1000:.0f} ms", p50 <= P50),
            Target("writes to the API for each Run", f"≤ {WRITES}", f"{writes:.1f}", writes <= WRITES),
        ),
    )


def write(directory: Path, toml: str, replies: dict[str, Any]) -> None:
    """Write a project whose model is scripted."""
    directory.mkdir(exist_ok=True)
    (directory / "perstack.toml").write_text(toml)
    (directory / "replies.json").write_text(json.dumps(replies))


def bare(claim: Claim) -> float:
    """Create a Job of the same image and volumes that prints one line, as a person does, and time that line."""
    name, job = bare_job(claim)
    no_pod_is_left()
    try:
        began = time.perf_counter()
        kubectl("create", "--filename=-", stdin=json.dumps(job))
        kubectl("wait", "--for=create", f"--selector=job-name={name}", "pod", "--timeout=30s")
        until(lambda: kubectl("logs", f"job/{name}", may_fail=True).startswith("hello"))
        return time.perf_counter() - began
    finally:
        kubectl("delete", "job", name, "--wait=false")


async def by_api(claim: Claim) -> float:
    """Do the same over one connection that stands already."""
    name, job = bare_job(claim)
    namespace = cluster.shared_namespace()
    no_pod_is_left()
    api = KubernetesClient(await find_credentials({"KUBECONFIG": str(cluster.kubeconfig())}))
    try:
        async with asyncio.timeout(60):
            await _pods_of(api, namespace, name)
            began = time.perf_counter()
            await api.create(client.jobs(namespace), job)
            while not (found := await _pods_of(api, namespace, name)):  # noqa: ASYNC110 - the server has no event
                await asyncio.sleep(_LOOK_SECONDS)
            while not await _tells(api, namespace, found[0]["metadata"]["name"]):  # noqa: ASYNC110 - the same
                await asyncio.sleep(_LOOK_SECONDS)
            return time.perf_counter() - began
    finally:
        await api.delete(client.jobs(namespace, name))
        api.close()


async def _pods_of(api: KubernetesClient, namespace: str, name: str) -> list[Any]:
    listed = await api.read(client.pods(namespace), {"labelSelector": f"job-name={name}"})
    return list(listed["items"])


async def _tells(api: KubernetesClient, namespace: str, pod: str) -> bool:
    try:
        async with api.stream(client.pods(namespace, pod, "log"), {"follow": "true"}) as log:
            return await anext(log.chunks(), b"") != b""
    except StatusError:
        return False  # its container is not there yet


def bare_job(claim: Claim) -> tuple[str, dict[str, Any]]:
    """Name and describe a Sandbox's Job that prints one line instead of waiting for a Run."""
    name, now = f"bare-{os.urandom(4).hex()}", int(time.time())
    pod = read_pod_setting(cluster.environment(claim)["PERSTACK_POD_SETTING"], Path.cwd())
    setting = ClusterSetting(cluster.shared_namespace(), claim, _NOWHERE.hosts, pod=pod)
    spec = SandboxSpec(
        name=name,
        image=cluster.runtime_image(),
        workspace=claim.root / "ws",
        state=claim.root / "bare",
        user=User(65532, 65532),
        deadline=now + _BARE_SECONDS,
        labels=naming.labels(name, sandbox=name, instance=name, deadline=now + _BARE_SECONDS),
        broker=_NOWHERE,
    )
    spec.state.mkdir(exist_ok=True)
    return name, kube_job(spec, setting, now, ("/opt/perstack/bin/python", "-I", "-c", "print('hello')"))


def no_pod_is_left() -> None:
    """Wait for those of the measurement before: while a kubelet takes one away, others start up to a second later."""
    until(lambda: not kubectl("get", "pods", "--output=name"))


def until(holds: Callable[[], bool]) -> None:
    """Look as often as it goes."""
    end = time.monotonic() + 60
    while not holds():
        if time.monotonic() > end:
            sys.exit("the Job did not run")


def kubectl(*arguments: str, stdin: str | None = None, may_fail: bool = False) -> str:
    """Ask the cluster."""
    command = cluster.command(f"--namespace={cluster.shared_namespace()}", *arguments)
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
    if done.returncode and not may_fail:
        sys.exit(f"kubectl {' '.join(arguments)}: {done.stderr}")
    return done.stdout


def run(directory: Path, claim: Claim, *arguments: str) -> subprocess.Popen[bytes]:
    """Start the command."""
    environ = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")} | cluster.environment(claim)
    command = [COMMAND, "run", "--backend", "kubernetes", *arguments]
    # As at a terminal: without one, the first warning imports the log library.
    screen, terminal = pty.openpty()
    process = subprocess.Popen(command, cwd=directory, env=environ, stdout=subprocess.PIPE, stderr=terminal)
    os.close(terminal)
    threading.Thread(target=_read_to_the_end, args=(screen,), daemon=True).start()
    return process


def _read_to_the_end(screen: int) -> None:
    # What was written to a terminal that is gone ends in an error.
    with os.fdopen(screen, "rb", buffering=0) as shown, suppress(OSError):
        while shown.read(65536):
            pass


def first_event(directory: Path, claim: Claim, *options: str) -> float:
    """Time the first event from inside a Sandbox; the job then runs to its end."""
    no_pod_is_left()
    began = time.perf_counter()
    with run(directory, claim, *options, "one", "go") as process:
        if process.stdout is None or not process.stdout.readline():
            sys.exit("the job told nothing")
        seconds = time.perf_counter() - began
        process.stdout.read()
    return seconds


def delegations(directory: Path, claim: Claim) -> tuple[Figures, float]:
    """Time hops to delegates whose Pods are warm; and count what was written to the API for each Run."""
    ask = {"text": "", "toolCalls": [{"name": "left", "args": {"query": "go"}}], "delayMs": _MODEL_MS}
    write(
        directory,
        TEAM,
        {
            "boss": [*[ask] * HOPS, {"text": "done", "delayMs": _MODEL_MS}],
            "left": [{"text": "done", "delayMs": _MODEL_MS}],
        },
    )
    # The audit log knows earlier ones.
    name = f"hops-{os.urandom(3).hex()}"
    with run(directory, claim, "--job-id", name, "boss", "go") as process:
        events = [json.loads(line) for line in process.communicate()[0].splitlines()]
    hops = [
        (event["timestamp"] - before["timestamp"]) / 1000
        for before, event in itertools.pairwise(events)
        if event["type"] == "initializeRuntime" and before["type"] in {"stopRunByDelegate", "completeRun"}
    ]
    runs = len({event["runId"] for event in events if "runId" in event})
    # The first two hops meet Pods that are not warm yet.
    return Figures("hop", tuple(hops[2:])), cluster.writes_for(name) / runs
