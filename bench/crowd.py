"""Many jobs at once from one process, which share one limit of warm Sandboxes.

python -m bench.crowd SHAPE COUNT DELAY_MS writes what it took to stdout as JSON; SHAPE is `fitness`, or `patient`: jobs
of one Run.
"""

import asyncio
import json
import os
import statistics
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from bench import projects
from bench.command import IMAGE
from bench.driven import LINK, job_in, output_of
from bench.fitness import EXPERT
from bench.measure import Figures, cpu_seconds, peak_megabytes
from bench.projects import scratch
from bench.section import Section, Target
from bench.waiting import resident
from orchestrator import WarmLimit, open_backend, provider_of, run_job
from orchestrator.pool.prewarm import affordable, capacity_of
from orchestrator.sandbox.api import Backend
from tests.support.processes import command_lines
from tests.support.project import Project

JOBS = 200
PATIENCE_MS = 90_000
"""Longer than it takes to start so many Sandboxes."""
_SHAPES = {
    "fitness": (projects.fitness, EXPERT),
    "patient": (lambda directory, delay_ms: projects.chain(directory, 0, delay_ms), "e0"),
}
_LOOK_SECONDS = 1.0
_LOOKED_AT = 20


@dataclass(frozen=True, slots=True)
class Crowd:
    """What became of the jobs. Seconds of wall and CPU time and of hops; megabytes of the orchestrator and a Sandbox.

    `at_once` is the most Sandboxes that lived at one moment.
    """

    jobs: int
    completed: int
    runs: int
    seconds: float
    cpu: float
    megabytes: int
    hops: tuple[float, ...]
    at_once: int
    sandbox: float


def crowd() -> Section:
    """Measure."""
    busy, patient = told("fitness", 300), told("patient", PATIENCE_MS)
    hops = Figures("", tuple(busy.hops))
    text = (
        f"{busy.jobs} fitness jobs at once from one process, 300 ms a model call: {busy.completed} completed, in "
        f"{busy.seconds:.0f} s, {busy.runs} Runs. The machine starts some {busy.runs / busy.seconds:.1f} Sandboxes a "
        "second and one limit of warm ones is for all, so a hop waits for a start; those of jobs that have begun come "
        f"first: p50 {hops.percentile(0.5):.2f} s, p95 {hops.percentile(0.95):.2f} s. The orchestrator has "
        f"{busy.megabytes} MB and uses {busy.cpu / busy.runs * 1000:.0f} ms of CPU time a Run.\n\n{patient.jobs} jobs "
        f"of one model call of {PATIENCE_MS // 1000} s: {patient.completed} completed, {patient.at_once} Sandboxes at "
        f"once with {patient.sandbox:.0f} MB of their own each, the orchestrator {patient.megabytes} MB."
    )
    return Section(
        "A crowd",
        text,
        (
            Target(f"{JOBS} fitness jobs at once", "all complete", f"{busy.completed}", busy.completed == JOBS),
            Target(
                f"{JOBS} Sandboxes at once",
                "all complete",
                f"{patient.completed}, {patient.at_once} at once",
                patient.completed == JOBS == patient.at_once,
            ),
        ),
    )


def told(shape: str, delay_ms: int, link: str = LINK) -> Crowd:
    """Run the jobs in a separate process."""
    command = [sys.executable, "-m", "bench.crowd", shape, str(JOBS), str(delay_ms)]
    return Crowd(**output_of(command, link))


async def _crowd(directory: Path, shape: str, count: int, delay_ms: int) -> Crowd:
    began, before = time.monotonic(), cpu_seconds()
    seen: list[tuple[int, float]] = []
    async with (
        open_backend("docker", os.environ, image=IMAGE) as backend,
        asyncio.TaskGroup() as tasks,
    ):
        limit = affordable(await capacity_of(backend))
        looking = tasks.create_task(_look(seen))
        async with asyncio.TaskGroup() as jobs:
            make, expert = _SHAPES[shape]
            working = [
                jobs.create_task(_work(make(directory / str(number), delay_ms), expert, backend, limit))
                for number in range(count)
            ]
        looking.cancel()
    results = [task.result() for task in working]
    return Crowd(
        jobs=count,
        completed=sum(1 for hops in results if hops is not None),
        runs=sum(len(hops) + 1 for hops in results if hops is not None),
        seconds=time.monotonic() - began,
        cpu=cpu_seconds() - before,
        megabytes=peak_megabytes(),
        hops=tuple(hop for hops in results if hops is not None for hop in hops),
        at_once=max(number for number, _ in seen),
        sandbox=statistics.median(megabytes for _, megabytes in seen if megabytes),
    )


async def _work(project: Project, expert: str, backend: Backend, limit: WarmLimit) -> tuple[float, ...] | None:
    name = f"crowd-{project.directory.name}"
    job, store = job_in(project.directory, expert, "docker", name)
    async with run_job(job, backend=backend, store=store, provider=provider_of(job), warm_limit=limit) as events:
        async for _ in events:
            pass
    outcome = events.outcome
    if outcome is None or outcome.status != "completed":
        sys.stderr.write(f"job {name}: {outcome}\n")
        return None
    return tuple(hop.seconds for hop in outcome.receipt.hops)


async def _look(seen: list[tuple[int, float]]) -> None:
    while True:
        pids = await asyncio.to_thread(_sandboxes)
        sizes = []
        for pid in pids[:_LOOKED_AT]:
            with suppress(OSError, StopIteration):
                sizes.append(resident(pid))
        seen.append((len(pids), statistics.median(sizes) if sizes else 0.0))
        await asyncio.sleep(_LOOK_SECONDS)


def _sandboxes() -> list[int]:
    return [process for process, command in command_lines() if b"orchestrator.runtime\0--deadline" in command]


if __name__ == "__main__":
    with scratch() as root:
        became = asyncio.run(_crowd(root, sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
    sys.stdout.write(json.dumps(asdict(became)))
