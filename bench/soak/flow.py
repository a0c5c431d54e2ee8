"""Many events, and many Runs that send them at the same time: what they cost the orchestrator, in a separate process.

python -m bench.soak.flow RUNS COUNT RATE: each Run sends COUNT events, at most RATE a second. The costs are written
to stdout as JSON.
"""

import asyncio
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from bench.measure import cpu_seconds, peak_megabytes
from bench.projects import scratch
from bench.soak.telling import GO, command
from orchestrator import Store, load_config, make_job, provider_of, run_job
from orchestrator.backends.docker import backend as docker
from orchestrator.plan.job import Job
from orchestrator.sandbox.api import DEFAULT_LIMITS, MIB
from tests.support import engine
from tests.support.project import ONE, Project

LIMITS = DEFAULT_LIMITS.with_(memory=64 * MIB, tmp=MIB, cpus=1.0, pids=16)


@dataclass(frozen=True, slots=True)
class Flow:
    """Events collected of those told, the seconds in which all Runs told theirs, and what the orchestrator used.

    `core` is the share of one core, `megabytes` the most memory, `lag` the median milliseconds from a Sandbox to the
    store.
    """

    runs: int
    told: int
    collected: int
    seconds: float
    core: float
    megabytes: int
    lag: float

    @property
    def rate(self) -> float:
        """Events collected in a second."""
        return self.collected / self.seconds

    @property
    def cpu(self) -> float:
        """Seconds of CPU time that the orchestrator used."""
        return self.core * self.seconds


def measured(runs: int, count: int, rate: float) -> Flow:
    """Measure in a separate process.

    Raises:
        subprocess.CalledProcessError: it failed; stderr has the reason.
    """
    command = [sys.executable, "-m", "bench.soak.flow", str(runs), str(count), str(rate)]
    return Flow(**json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout))


async def flow(directory: Path, runs: int, count: int, rate: float) -> Flow:
    """Run jobs of one Run each, all at once."""
    config = load_config(Project.make(directory, "docker", ONE, {"one": []}).directory / "perstack.toml")
    store = Store(directory / "perstack")
    job = make_job("one", "go", config=config, env={}, workspace=workspace_in(directory), store=store.root)
    job = replace(job, limits=LIMITS, prewarm=0, image=engine.runtime_image())
    starting, waiting = asyncio.Semaphore(4), runs
    lags: list[int] = []
    clock: list[float] = []
    before = 0.0

    def begin() -> None:
        nonlocal before, waiting
        starting.release()
        waiting -= 1
        if not waiting:
            before = cpu_seconds()
            (job.workspace.path / GO).touch()

    async def work(one: Job) -> int:
        collected = 0
        async with docker.connect(os.environ, one.image, command=command(count, rate)) as backend:
            await starting.acquire()
            async with run_job(one, backend=backend, store=store, provider=provider_of(one)) as events:
                async for recorded in events:
                    collected += 1
                    if collected == 1:
                        begin()
                        continue
                    clock.append(time.monotonic())
                    lags.append(time.time_ns() // 1_000_000 - recorded.event.timestamp)
        return collected

    async with asyncio.TaskGroup() as tasks:
        working = [tasks.create_task(work(replace(job, id=f"flow-{number}"))) for number in range(runs)]
    seconds = clock[-1] - clock[0]
    return Flow(
        runs,
        runs * count,
        sum(task.result() for task in working),
        round(seconds, 2),
        round((cpu_seconds() - before) / seconds, 2),
        peak_megabytes(),
        sorted(lags)[len(lags) // 2],
    )


def workspace_in(directory: Path) -> Path:
    """Make a workspace that Sandboxes may write."""
    workspace = directory / "workspace"
    workspace.mkdir()
    if os.geteuid() == 0:
        os.chown(workspace, 65532, 65532)
    return workspace


if __name__ == "__main__":
    with scratch() as root:
        told = asyncio.run(flow(root / "project", int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
    sys.stdout.write(json.dumps(asdict(told)))
