"""Many Runs at once in a real cluster, from one orchestrator.

python -m bench.together COUNT writes what it took to stdout as JSON.
"""

import asyncio
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.measure import Figures, cpu_seconds, peak_megabytes
from bench.projects import scratch
from bench.section import Section, Target
from orchestrator import Store, load_config, make_job, open_backend, provider_of, run_job
from orchestrator.backends.cluster_settings import ClusterSetting, PodSetting
from orchestrator.plan.job import Job
from orchestrator.plan.job_options import JobOptions
from orchestrator.sandbox.api import Backend
from tests.support import cluster
from tests.support.project import ONE, Project, say, use

RUNS = 50
SMALL = PodSetting(memory="256Mi", cpu="2", cpu_request="10m", storage="512Mi")
_MODEL_MS = 20_000
"""How long each model call takes, so that all Runs are at work at once."""


@dataclass(frozen=True, slots=True)
class Together:
    """Seconds from the start of all jobs to the first event of each and to the end of the last; Runs at work at once.

    `lost` and `repeated` are events. `writes` to the API are those for each Run, `megabytes` the orchestrator's most.
    """

    runs: int
    completed: int
    at_once: int
    first: tuple[float, ...]
    seconds: float
    lost: int
    repeated: int
    writes: float
    cpu: float
    megabytes: int


def together() -> Section:
    """Measure."""
    command = [sys.executable, "-m", "bench.together", str(RUNS)]
    found = Together(**json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout))
    first = Figures("", tuple(found.first))
    text = (
        f"{found.runs} jobs of one Run at once, on one node with {os.cpu_count()} cores: {found.completed} completed, "
        f"{found.at_once} at work at once; {found.lost} events lost, {found.repeated} repeated. First event after "
        f"{first.percentile(0.5):.1f} s at the median and {max(first.seconds):.1f} s at most: the node starts Pods one "
        f"after another. The orchestrator had {found.megabytes} MB and took {found.cpu / found.runs * 1000:.0f} ms of "
        f"CPU time a Run; {found.writes:.1f} writes to the API for each."
    )
    good = found.completed == found.at_once == found.runs and found.lost == found.repeated == 0
    got = f"{found.completed} completed, {found.at_once} at once"
    return Section("Together", text, (Target(f"{RUNS} Runs at once on Kubernetes", "all complete", got, good),))


async def _together(directory: Path, count: int) -> Together:
    slow = {"delayMs": _MODEL_MS}
    look = use(("listDirectory", {"path": "."}))
    made = Project.make(directory, "kubernetes", ONE, {"one": [look | slow, say("done") | slow]})
    environ = {"KUBECONFIG": str(cluster.kubeconfig())}
    # The audit log knows earlier ones.
    name = f"together-{os.urandom(3).hex()}"
    setting = ClusterSetting(cluster.shared_namespace(), cluster.shared_claim(), cluster.node_addresses(), pod=SMALL)
    store, config = Store(made.store), load_config(made.directory / "perstack.toml")
    began, crowd, cpu = time.monotonic(), _Crowd(), cpu_seconds()
    async with (
        open_backend("kubernetes", environ, image=cluster.runtime_image(), cluster=setting) as backend,
        asyncio.TaskGroup() as tasks,
    ):
        jobs = [
            make_job(
                "one", "go", config=config, env={}, backend="kubernetes", store=store.root, job_id=f"{name}-{number}",
                options=JobOptions(image=cluster.runtime_image(), prewarm="off"), cluster=setting,
            )
            for number in range(count)
        ]  # fmt: skip
        tales = [tasks.create_task(_work(job, backend, store, crowd)) for job in jobs]
    seconds, cpu = time.monotonic() - began, cpu_seconds() - cpu
    found = [task.result() for task in tales]
    return Together(
        runs=count,
        completed=sum(tale.completed for tale in found),
        at_once=crowd.most,
        first=tuple(tale.first - began for tale in found),
        seconds=seconds,
        lost=sum(max(tale.numbers, default=0) - len(set(tale.numbers)) for tale in found),
        repeated=sum(len(tale.numbers) - len(set(tale.numbers)) for tale in found),
        writes=cluster.writes_for(name) / count,
        cpu=cpu,
        megabytes=peak_megabytes(),
    )


@dataclass(frozen=True, slots=True)
class _Tale:
    """When a job told its first event, the numbers of all events that its Sandbox told, and whether it completed."""

    first: float
    numbers: tuple[int, ...]
    completed: bool


@dataclass(slots=True)
class _Crowd:
    """How many are at work, and the most that were."""

    now: int = 0
    most: int = 0

    def come(self) -> None:
        self.now += 1
        self.most = max(self.most, self.now)


async def _work(job: Job, backend: Backend, store: Store, crowd: _Crowd) -> _Tale:
    first, numbers = 0.0, []
    async with run_job(job, backend=backend, store=store, provider=provider_of(job)) as events:
        async for recorded in events:
            if not first:
                first = time.monotonic()
                crowd.come()
            if recorded.event.seq is not None:
                numbers.append(recorded.event.seq)
    crowd.now -= 1
    return _Tale(first, tuple(numbers), events.outcome is not None and events.outcome.status == "completed")


if __name__ == "__main__":
    with scratch() as root:
        measured = asyncio.run(_together(root / "project", int(sys.argv[1])))
    sys.stdout.write(json.dumps(asdict(measured)))
