"""Many orchestrators on one machine at the same time."""

import asyncio
import time
from pathlib import Path

import pytest

from tests.support.project import Project, Result, ask, say, use

JOBS = 20
_SECONDS = 300

TEAM = '[experts.boss]\ninstruction = "Lead."\ndelegates = ["aide"]\n[experts.aide]\ninstruction = "Help."\n'


@pytest.mark.docker
async def test_many_jobs_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All complete, each with its own answer, and nothing is left of any."""
    began = time.monotonic()
    async with asyncio.timeout(_SECONDS), asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(_one(tmp_path / f"job{number}", number)) for number in range(JOBS)]
    with capsys.disabled():
        print(f"\n{JOBS} jobs of two Experts at once: {time.monotonic() - began:.1f} s")  # noqa: T201 - the finding
    results = [task.result() for task in running]
    assert [result.code for result in results] == [0] * JOBS, "\n".join(result.stderr for result in results)
    for number, result in enumerate(results):
        assert result.control == [
            ("startRun", "boss"),
            ("stopRunByDelegate", "boss"),
            ("startRun", "aide"),
            ("completeRun", "aide"),
            ("startRun", "boss"),
            ("completeRun", "boss"),
        ]
        assert f'"text":"answer {number}"'.encode() in result.stdout.splitlines()[-1]


async def _one(directory: Path, number: int) -> Result:
    replies = {"boss": [use(ask("aide", "help")), say(f"answer {number}")], "aide": [say("helped")]}
    return await Project.make(directory, "docker", TEAM, replies).run("boss", "go")
