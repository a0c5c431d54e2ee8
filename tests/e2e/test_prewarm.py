"""Warm Sandboxes: how many there are at what time, and that none stays."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from orchestrator import JobEvents
from orchestrator.plan.job_options import JobOptions
from orchestrator.plan.make_job import instance_of
from orchestrator.pool import pool
from orchestrator.pool.state_directories import directory_of, ordinals
from orchestrator.store import Store
from tests.support.embedded import JOB, running
from tests.support.project import Make, Project, ask, say, use

TEAM = (
    '[experts.boss]\ninstruction = "Lead."\ndelegates = ["aide", "clerk"]\n'
    '[experts.aide]\ninstruction = "Help."\n[experts.clerk]\ninstruction = "Write."\n'
    '[experts.quick]\ninstruction = "Lead."\ndelegates = ["aide"]\n[experts.alone]\ninstruction = "Work."\n'
)
SLEEP = {"command": "sleep", "args": ["30"], "env": {}, "cwd": "/workspace", "stdout": True, "stderr": True}
LATE = say("late") | {"delayMs": 30_000}
WORKS_AT_ONCE = [use(("exec", SLEEP)), say("done")]
WORKS_ALONE = [use(("exec", SLEEP)) | {"delayMs": 1_500}, say("done")]


@asynccontextmanager
async def _going(project: Project, prewarm: str, expert: str = "boss") -> AsyncIterator[Callable[[], int]]:
    """Run the coordinator; give a function that counts the Sandboxes that the job has, launched or about to be."""
    async with running(project, expert, options=JobOptions(prewarm=prewarm)) as events, asyncio.TaskGroup() as tasks:
        reading = tasks.create_task(_read(events))
        yield lambda: len(ordinals(directory_of(instance_of(project.store), JOB)))
        reading.cancel()


async def _read(events: JobEvents) -> None:
    async for _ in events:
        pass


async def _until(count: Callable[[], int], expected: int) -> None:
    async with asyncio.timeout(20):
        while count() != expected:  # noqa: ASYNC110 - what is looked at is outside
            await asyncio.sleep(0.02)


async def _stays(count: Callable[[], int], expected: int) -> None:
    for _ in range(20):
        await asyncio.sleep(0.05)
        assert count() == expected


@pytest.mark.parametrize(("prewarm", "expected"), [("auto", 4), ("off", 1), ("5", 6)])
async def test_as_many_are_warm_as_may_be_needed(project: Make, prewarm: str, expected: int) -> None:
    """By default there is one for each delegate and one to continue in; else none, or as many as requested."""
    async with _going(project(TEAM, {"boss": [LATE]}), prewarm) as count:
        await _until(count, expected)
        await _stays(count, expected)


async def test_while_a_delegate_works_its_coordinator_s_next_need_is_met(project: Make) -> None:
    """There is one for the coordinator to continue in, and one for each delegate of its next reply."""
    async with _going(project(TEAM, {"boss": [use(ask("aide", "help"))], "aide": [LATE]}), "auto") as count:
        await _until(count, 4)
        await _stays(count, 4)


@pytest.mark.parametrize(
    ("expert", "prewarm", "launched"),
    [
        pytest.param("boss", "auto", 4, id="a reply that calls no delegate"),
        pytest.param("quick", "3", 4, id="a reply that comes at once"),
        pytest.param("alone", "3", 4, id="an Expert that cannot delegate"),
    ],
)
async def test_an_unused_sandbox_is_removed(
    project: Make, monkeypatch: pytest.MonkeyPatch, expert: str, prewarm: str, launched: int
) -> None:
    """Whatever it was warmed for, it is removed after a while, and not at once."""
    monkeypatch.setattr(pool, "UNUSED_SECONDS", 1.0)
    replies = {"boss": WORKS_ALONE, "quick": WORKS_AT_ONCE, "alone": WORKS_AT_ONCE}
    async with _going(project(TEAM, replies), prewarm, expert) as count:
        await _until(count, launched)
        await _until(count, 1)
        await _stays(count, 1)


async def test_what_is_wanted_stays(project: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """It stays while the model thinks, however long that takes."""
    monkeypatch.setattr(pool, "UNUSED_SECONDS", 0.1)
    async with _going(project(TEAM, {"boss": [LATE]}), "auto") as count:
        await _until(count, 4)
        await _stays(count, 4)


async def test_a_sandbox_that_waited_too_long_gets_no_run(project: Make) -> None:
    """Its deadline would end the Run too early: it is removed, and another is started."""
    made = project(
        TEAM, {"boss": [use(ask("aide", "help")) | {"delayMs": 2_000}, say("done")], "aide": [say("helped")]}
    )
    async with running(made, "boss", wait_seconds=1.0) as events:
        await _read(events)
    records = Store(made.store).read(JOB)
    assert events.outcome is not None
    assert (events.outcome.text, records is not None) == ("done", True)
    assert records is not None
    used = {setting.expert_key: setting.sandboxes for setting in records.settings() if setting.expert_key == "aide"}
    # The first was the coordinator's; the next three were warm during the model call, and are too old by then.
    assert used["aide"][0] > 4


@pytest.mark.parametrize("typed", ["on", "-1", "65", "1.5", "", "٣"])
async def test_other_numbers_are_refused(project: Make, typed: str) -> None:
    """One sentence, exit 2, nothing started."""
    result = await project(TEAM, {}).run("boss", "go", f"--prewarm={typed}")
    assert (result.code, result.stdout) == (2, b"")
    assert f"--prewarm {typed!r} is not usable: use auto, off, or a number up to 64" in result.stderr
