"""Where the time goes: the moments of a cold start and of a hop, each as the median of several jobs.

python -m bench.timeline DIRECTORY ROUNDS writes them to stdout as JSON.
"""

import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from bench import projects
from bench.driven import job_in
from bench.section import Section, rows
from orchestrator import open_backend, provider_of, run_job
from orchestrator.backends.docker.client import DockerClient
from orchestrator.broker.session import Session
from orchestrator.store import JobRecords

Moments = list[tuple[str, float]]

_COLD = (
    ("engine: container created", "created"),
    ("engine and runc: container started", "started"),
    ("interpreter, imports: attached at the broker", "attached"),
    ("the Run recorded", "recorded"),
    ("handed over", "assigned"),
    ("its first event stored at the host", "initializeRuntime"),
    ("loop and tools imported: the model is called", "startGeneration"),
)
_HOP = (
    ("the next Run planned and recorded", "recorded"),
    ("handed over", "assigned"),
    ("its first event stored at the host", "initializeRuntime"),
    ("the model is called", "startGeneration"),
)


def timeline(directory: Path, rounds: int) -> Section:
    """Measure in a separate process, whose functions record when they are done."""
    command = [sys.executable, "-m", "bench.timeline", str(directory), str(rounds)]
    jobs: list[Moments] = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    cold = [_after(moments, "asked", _COLD) for moments in jobs]
    hop = [_after(moments, "stopRunByDelegate", _HOP) for moments in jobs]
    text = (
        "Milliseconds from the call of `run_job` to a Sandbox that calls the model, everything cold, and from the stop "
        f"of a coordinator to the same in its delegate's warm Sandbox:\n\n{_table(_COLD, cold)}\n\n{_table(_HOP, hop)}"
    )
    return Section("Where the time goes", text)


def _table(names: tuple[tuple[str, str], ...], seen: list[list[float]]) -> str:
    medians = [statistics.median(column) * 1000 for column in zip(*seen, strict=True)]
    steps = [later - earlier for earlier, later in zip([0.0, *medians], medians, strict=False)]
    lines = [[name, f"{at:.1f}", f"{step:+.1f}"] for (name, _), at, step in zip(names, medians, steps, strict=True)]
    return rows(["", "ms", "step"], *lines)


def _after(moments: Moments, first: str, wanted: tuple[tuple[str, str], ...]) -> list[float]:
    """Seconds from the first moment of a name to the next of each name, one after another."""
    place = next(index for index, (name, _) in enumerate(moments) if name == first)
    began, found = moments[place][1], []
    for _, name in wanted:
        place = next(index for index in range(place, len(moments)) if moments[index][0] == name)
        found.append(moments[place][1] - began)
    return found


async def _one(directory: Path, number: int) -> Moments:
    moments: Moments = []
    project = projects.team(directory / f"timeline-{number}", 1, 300)
    job, store = job_in(project.directory, "boss", "docker")
    with _told(moments):
        async with open_backend("docker", os.environ, image=job.image) as backend:
            moments.append(("asked", time.perf_counter()))
            async with run_job(job, backend=backend, store=store, provider=provider_of(job)) as events:
                async for recorded in events:
                    moments.append((recorded.event.type, time.perf_counter()))
    return moments


class _told:  # noqa: N801 - used like a function
    """Has functions of the product note when they are done."""

    def __init__(self, moments: Moments) -> None:
        self._moments = moments
        self._before: list[tuple[type, str, Callable[..., Any]]] = []

    def __enter__(self) -> None:
        for kind, name, moment in (
            (DockerClient, "create", "created"), (DockerClient, "start", "started"), (Session, "ready", "attached"),
            (JobRecords, "keep_setting", "recorded"), (Session, "assign", "assigned"),
        ):  # fmt: skip
            function = getattr(kind, name)
            self._before.append((kind, name, function))
            setattr(kind, name, _noted(function, moment, self._moments))

    def __exit__(self, *_: object) -> None:
        for kind, name, function in self._before:
            setattr(kind, name, function)


def _noted(function: Callable[..., Any], moment: str, moments: Moments) -> Callable[..., Any]:
    @wraps(function)
    async def noted(*given: Any, **named: Any) -> Any:
        result = await function(*given, **named)
        moments.append((moment, time.perf_counter()))
        return result

    return noted


async def _all(directory: Path, rounds: int) -> list[Moments]:
    return [await _one(directory, number) for number in range(rounds)]


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asyncio.run(_all(Path(sys.argv[1]), int(sys.argv[2])))))
