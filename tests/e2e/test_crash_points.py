"""The orchestrator is killed at a durable step or at any moment, and the job resumed. A longer tier: `make soak`."""

import random
from pathlib import Path

import pytest

from tests.support import crash_recovery, engine

POINTS = {"process": 10, "docker": 6, "kubernetes": 3}
LONGEST = {"process": 1.5, "docker": 3.0, "kubernetes": 6.0}
"""Seconds that the job takes at most on an idle machine."""


@pytest.mark.everywhere
async def test_killed_at_durable_steps_nothing_is_lost(tmp_path: Path, backend: str) -> None:
    """At each of a few points: the same events, each once, every tool's work once, nothing left behind."""
    seed = random.SystemRandom().randrange(2**32)
    chance = random.Random(seed)  # noqa: S311 - a seed that can be printed
    count = await crash_recovery.steps(crash_recovery.project(tmp_path / "counted", backend))
    for step in sorted(chance.sample(range(1, count + 1), POINTS[backend])):
        made = crash_recovery.project(tmp_path / f"{step}", backend)
        try:
            killed = await crash_recovery.crashed(made, step)
            await crash_recovery.check(made, killed, engine_answers=engine.answers())
        except AssertionError as error:
            error.add_note(f"at step {step} of {count}, seed {seed}")
            raise


@pytest.mark.parametrize("kills", [1, 3])
@pytest.mark.everywhere
async def test_killed_at_any_moment_nothing_is_lost(tmp_path: Path, backend: str, kills: int) -> None:
    """Also if the command that resumes it is killed too."""
    seed = random.SystemRandom().randrange(2**32)
    chance = random.Random(seed)  # noqa: S311 - the same
    made = crash_recovery.project(tmp_path / "project", backend)
    moments = [chance.uniform(0.2, LONGEST[backend]) for _ in range(kills)]
    try:
        killed = await crash_recovery.killed_after(made, moments)
        await crash_recovery.check(made, killed, engine_answers=engine.answers())
    except AssertionError as error:
        error.add_note(f"killed after {moments} seconds, seed {seed}")
        raise
