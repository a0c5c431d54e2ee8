"""The orchestrator is killed at each of its durable steps, and at random moments."""

import random
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from tests.support import crash_recovery, engine

LONGEST = {"process": 1.8, "docker": 3.5, "kubernetes": 8.0}
"""Seconds that the job takes at most."""


@dataclass(frozen=True, slots=True)
class Kills:
    """How many jobs were cut off, how often in all, and what was wrong afterwards, a sentence each."""

    backend: str
    jobs: int = 0
    kills: int = 0
    wrong: tuple[str, ...] = ()

    def with_job(self, kills: int, wrong: str | None) -> "Kills":
        """The same after one more job."""
        found = self.wrong if wrong is None else (*self.wrong, wrong)
        return replace(self, jobs=self.jobs + 1, kills=self.kills + kills, wrong=found)


async def at_steps(directory: Path, backend: str, every: int) -> Kills:
    """Kill it at every `every`-th durable step in turn."""
    count = await crash_recovery.steps(crash_recovery.project(directory / "counted", backend))
    told = Kills(backend)
    for step in range(1, count + 1, every):
        told = await _one(told, directory / f"step-{step}", step)
    return told


async def at_moments(directory: Path, backend: str, count: int, chance: random.Random) -> Kills:
    """Kill it `count` times at random moments, up to three times a job."""
    told = Kills(backend)
    while told.kills < count:
        moments = [chance.uniform(0.1, LONGEST[backend]) for _ in range(chance.choice((1, 1, 2, 3)))]
        told = await _one(told, directory / f"moment-{told.jobs}", moments)
    return told


async def _one(told: Kills, directory: Path, when: int | Iterable[float]) -> Kills:
    made = crash_recovery.project(directory, told.backend)
    kills = 0
    try:
        killed = await (
            crash_recovery.crashed(made, when)
            if isinstance(when, int)
            else crash_recovery.killed_after(made, list(when))
        )
        kills = killed.kills
        await crash_recovery.check(made, killed, engine_answers=told.backend == "docker" or engine.answers())
    except AssertionError as error:
        return told.with_job(kills, f"{told.backend}, killed at {when}: {error}"[:400])
    shutil.rmtree(directory)
    return told.with_job(kills, None)
