"""The orchestrator is killed at a durable step or at any moment, and the job taken up. A longer tier: `make soak`."""

import random
from pathlib import Path

import pytest

from tests.support import engine, survival

POINTS = {"process": 10, "docker": 6, "kubernetes": 3}
LONGEST = {"process": 1.5, "docker": 3.0, "kubernetes": 6.0}
"""Seconds that the job takes at most on a quiet machine."""


@pytest.mark.everywhere
async def test_killed_at_durable_steps_nothing_is_lost(tmp_path: Path, backend: str) -> None:
    """Whichever of a few points it is: the same events, each once, every tool's work once, nothing left behind."""
    seed = random.SystemRandom().randrange(2**32)
    chance = random.Random(seed)  # noqa: S311 - a seed that can be printed
    count = await survival.steps(survival.project(tmp_path / "counted", backend))
    for step in sorted(chance.sample(range(1, count + 1), POINTS[backend])):
        made = survival.project(tmp_path / f"{step}", backend)
        try:
            killed = await survival.crashed(made, step)
            await survival.check(made, killed, engine_answers=engine.answers())
        except AssertionError as error:
            error.add_note(f"at step {step} of {count}, seed {seed}")
            raise


@pytest.mark.parametrize("kills", [1, 3])
@pytest.mark.everywhere
async def test_killed_at_any_moment_nothing_is_lost(tmp_path: Path, backend: str, kills: int) -> None:
    """Also when who takes it up is killed too."""
    seed = random.SystemRandom().randrange(2**32)
    chance = random.Random(seed)  # noqa: S311 - the same
    made = survival.project(tmp_path / "project", backend)
    moments = [chance.uniform(0.2, LONGEST[backend]) for _ in range(kills)]
    try:
        killed = await survival.killed_after(made, moments)
        await survival.check(made, killed, engine_answers=engine.answers())
    except AssertionError as error:
        error.add_note(f"killed after {moments} seconds, seed {seed}")
        raise
