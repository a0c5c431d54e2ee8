"""The library in an embedding program: the documented example, and leaving a job early."""

import asyncio
import json
import re
import sys
from pathlib import Path

import pytest

from orchestrator import Recorded
from orchestrator.errors import StoreError
from tests.support.embedded import ENVIRON, running
from tests.support.project import ONE, Make, Project, Result, ended, say, use

ROOT = Path(__file__).parents[2]
LOOK = use(("listDirectory", {"path": "."}))
LATE = say("late") | {"delayMs": 60_000}


class LeftError(Exception):
    """What the embedding program raises."""


def _status(project: Project) -> str:
    status: str = json.loads((project.store / "jobs" / "embedded" / "job.json").read_text())["status"]
    return status


def _stored(project: Project) -> set[bytes]:
    return {
        line for path in project.store.glob("jobs/embedded/**/events.jsonl") for line in path.read_bytes().split(b"\n")
    }


def _second_call(recorded: Recorded, seen: list[bytes]) -> bool:
    """Record an event; return whether it is the second model call's, which the script makes wait."""
    seen.append(recorded.line)
    return sum(b'"type":"startGeneration"' in line for line in seen) == 2


async def _iterate(project: Project, began: asyncio.Event) -> None:
    """Run the job to its end, and write its first event."""
    async with running(project) as events:
        async for _ in events:
            began.set()


async def test_a_job_to_its_end(project: Make) -> None:
    """All events are seen in order, stored as seen, and the outcome is there after them."""
    made = project(ONE, {"one": [LOOK, say("done")]})
    async with running(made) as events:
        seen = [recorded async for recorded in events]
    assert [recorded.event.position for recorded in seen] == list(range(1, len(seen) + 1))
    assert events.outcome is not None
    assert (events.outcome.text, events.outcome.error) == ("done", None)
    assert (events.outcome.status, _status(made)) == ("completed", "completed")
    assert {recorded.line for recorded in seen} == _stored(made) - {b""}


async def test_leaving_the_block_in_the_middle_of_a_model_call_stops_the_job(project: Make) -> None:
    """Nothing runs once the block is left (the fixture checks it), and all that was seen is in the records."""
    made = project(ONE, {"one": [LOOK, LATE]})
    seen: list[bytes] = []
    async with running(made) as events:
        async for recorded in events:
            if _second_call(recorded, seen):
                break
    assert _status(made) == "cancelled"
    assert events.outcome is None
    assert set(seen) <= _stored(made)


async def test_raising_in_the_block_stops_the_job_and_comes_out_as_it_is(project: Make) -> None:
    """The program's own error is not wrapped in a group, and nothing continues in the background."""
    made = project(ONE, {"one": [LOOK, LATE]})
    seen: list[bytes] = []

    async def work() -> None:
        async with running(made) as events:
            async for recorded in events:
                if _second_call(recorded, seen):
                    raise LeftError

    with pytest.raises(LeftError):
        await work()
    assert _status(made) == "cancelled"
    assert set(seen) <= _stored(made)


async def test_cancelling_the_iterating_task_stops_the_job(project: Make) -> None:
    """A timeout around the block is enough to end a job."""
    made = project(ONE, {"one": [LATE]})
    began = asyncio.Event()
    task = asyncio.create_task(_iterate(made, began))
    async with asyncio.timeout(60):
        await began.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert _status(made) == "cancelled"


async def test_leaving_before_the_first_event(project: Make) -> None:
    """A block that does nothing leaves nothing."""
    made = project(ONE, {"one": [LATE]})
    async with running(made):
        pass
    assert _status(made) == "cancelled"


async def test_leaving_stops_the_job_even_if_that_cannot_be_recorded(project: Make) -> None:
    """The store's error is raised, and nothing continues in the background."""
    made = project(ONE, {"one": [LATE]})
    before = asyncio.all_tasks()

    async def work() -> None:
        async with running(made) as events:
            async for _ in events:
                job = made.store / "jobs" / "embedded"
                job.rename(made.store / "taken away")
                job.touch()
                break

    with pytest.raises(StoreError, match="embedded must be a directory, but is not"):
        await work()
    assert asyncio.all_tasks() == before


async def test_repeated_cancellation_still_stops_the_job(project: Make) -> None:
    """The block is not left while anything still runs."""
    made = project(ONE, {"one": [LATE]})
    before = asyncio.all_tasks()
    began = asyncio.Event()
    task = asyncio.create_task(_iterate(made, began))
    async with asyncio.timeout(60):
        await began.wait()
        while not task.done():
            task.cancel()
            await asyncio.sleep(0)
    assert task.cancelled()
    assert asyncio.all_tasks() == before
    assert _status(made) == "cancelled"


async def _program(directory: Path, *arguments: str) -> Result:
    ran = await asyncio.create_subprocess_exec(
        sys.executable,
        *arguments,
        cwd=directory,
        env=ENVIRON,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    return await ended(ran)


async def test_the_documented_example(tmp_path: Path, backend: str) -> None:
    """It runs as its text describes, and ends with the Expert's answer."""
    result = await _program(tmp_path, str(ROOT / "examples" / "embedding" / "run.py"), backend)
    assert (result.code, result.stderr) == (0, "")
    assert "pro-trainer completeRun" in result.stdout.decode()
    assert "Your session is ready" in result.stdout.decode()
    assert (tmp_path / "workspace" / "fitness-log.md").exists()


@pytest.mark.docker
async def test_the_page_itself(tmp_path: Path) -> None:
    """The program on the page runs unchanged, next to a perstack.toml."""
    page = (ROOT / "docs" / "embedding.md").read_text()
    program = re.search(r"```python\n(.*?)```", page, re.DOTALL)
    assert program is not None
    (tmp_path / "program.py").write_text(program[1])
    for name in ("perstack.toml", "replies.json"):
        (tmp_path / name).write_bytes((ROOT / "examples" / "fitness" / name).read_bytes())
    result = await _program(tmp_path, "program.py")
    assert result.code == 0, result.stderr
    assert b"completeRun" in result.stdout
    assert b"Outcome(status=" in result.stdout
