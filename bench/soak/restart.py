"""The engine is restarted while many Runs work on it."""

import asyncio
import signal
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

from bench.projects import scratch
from bench.soak.flow import LIMITS, workspace_in
from orchestrator import Store, load_config, make_job, provider_of, run_job
from orchestrator.backends.docker import backend as docker
from orchestrator.plan.job import Job
from orchestrator.sandbox.api import MIB
from orchestrator.wire.event import TERMINAL_TYPES
from tests.support import engine
from tests.support.project import ONE, Project, say, use
from tests.support.second_engine import SecondEngine, second_engine

SECONDS = 240
REPLIES = {
    "one": [
        use(("listDirectory", {"path": "."})) | {"delayMs": 2000},
        use(("listDirectory", {"path": "."})) | {"delayMs": 4000},
        say("done") | {"delayMs": 4000},
    ]
}


Told = tuple[str, int | None, int | None, str]
"""An event's Run, attempt, number and type."""


@dataclass(frozen=True, slots=True)
class Restart:
    """How many Runs there were, completed, begun again; events that were missing or came twice; Sandboxes left."""

    how: str
    runs: int
    completed: int
    again: int
    lost: int
    repeated: int
    left: int


async def restart(runs: int, how: signal.Signals) -> Restart:
    """Work `runs` jobs of one Run each, and end their engine with the signal `how` in the middle."""
    with scratch() as root:
        async with second_engine(root / "engine") as second:
            return await _restarted(root, second, runs, how)


async def _restarted(root: Path, second: SecondEngine, runs: int, how: signal.Signals) -> Restart:
    made = Project.make(root / "project", "docker", ONE, REPLIES)
    store = Store(made.store)
    job = make_job(
        "one",
        "go",
        config=load_config(made.directory / "perstack.toml"),
        env={},
        workspace=workspace_in(made.directory),
        store=store.root,
    )
    job = replace(job, limits=LIMITS.with_(memory=256 * MIB), prewarm=0, image=engine.runtime_image())
    up = asyncio.Semaphore(0)

    async def work(one: Job) -> list[Told]:
        found: list[Told] = []
        environ = {"DOCKER_HOST": second.address}
        async with (
            docker.connect(environ, one.image) as backend,
            run_job(one, backend=backend, store=store, provider=provider_of(one)) as events,
        ):
            async for recorded in events:
                event = recorded.event
                found.append((event.run_id, event.attempt, event.seq, event.type))
                up.release()
        return found

    async with asyncio.timeout(SECONDS), asyncio.TaskGroup() as tasks:
        working = [tasks.create_task(work(replace(job, id=f"restart-{number}"))) for number in range(runs)]
        for _ in range(4 * runs):
            await up.acquire()
        await second.restarted(how)
    told = [task.result() for task in working]
    left = second.docker("ps", "-aq", "--filter", f"label={engine.LABEL}").split()
    return Restart(
        how.name,
        runs,
        completed=sum(events[-1][3] == "completeRun" for events in told),
        again=sum(any((event[1] or 1) > 1 for event in events) for events in told),
        lost=sum(map(_lost, told)),
        repeated=sum(len(events) - len(set(events)) for events in told),
        left=len(left),
    )


def _lost(events: list[Told]) -> int:
    """Numbers that are missing between the events of an attempt, and Runs without an end."""
    last: Counter[int | None] = Counter()
    seen: Counter[int | None] = Counter()
    for _, attempt, seq, _ in events:
        if seq is not None:
            last[attempt] = max(last[attempt], seq)
            seen[attempt] += 1
    ends = sum(event[3] in TERMINAL_TYPES for event in events)
    return sum((last - seen).values()) + (1 - ends)
