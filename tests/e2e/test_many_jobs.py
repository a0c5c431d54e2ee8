"""Many jobs at once on one engine, as on a shared machine."""

import asyncio
from pathlib import Path

import pytest

from tests.support.project import Project, Result, ask, say, use

JOBS = 20
TEAM = '[experts.one]\ninstruction = "Do."\ndelegates = ["two"]\n[experts.two]\ninstruction = "Do."\n'
REPLIES = {"one": [use(ask("two", "go on")), say("done")], "two": [say("done too")]}


@pytest.mark.docker
@pytest.mark.parametrize("backend", ["docker"])
async def test_twenty_jobs_with_a_delegate_each(tmp_path: Path, backend: str) -> None:
    """Twenty commands started at once, three Runs each: every one completes, none in another's way."""
    projects = [Project.make(tmp_path / f"job-{number}", backend, TEAM, REPLIES) for number in range(JOBS)]
    results: list[Result] = []

    async def run(made: Project) -> None:
        results.append(await made.run("one", "go"))

    async with asyncio.TaskGroup() as group:
        for made in projects:
            group.create_task(run(made))
    assert [(result.code, result.stderr) for result in results if result.code] == []
    assert [result.types.count("completeRun") for result in results] == [2] * JOBS
    assert [len({event.run_id for event in result.events}) for result in results] == [3] * JOBS
