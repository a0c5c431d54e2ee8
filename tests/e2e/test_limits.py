"""Limits of time, for one Run and for the whole job."""

import json

import pytest

from orchestrator.wire.event import CompleteRun, StopRunByError
from tests.support.project import ONE, Make, ask, say, use

TEAM = '[experts.boss]\ninstruction = "Lead."\ndelegates = ["slow"]\n[experts.slow]\ninstruction = "Slow."\n'


@pytest.mark.everywhere
async def test_a_run_past_its_limit_ends_in_error(project: Make) -> None:
    """The platform writes the error in the Run's place; exit 1."""
    made = project(ONE, {"one": [say("late") | {"delayMs": 60_000}]})
    result = await made.run("one", "go", "--run-timeout", "2")
    assert result.code == 1, result.stderr
    stop: StopRunByError = result.of(StopRunByError)[0]
    assert (stop.error.name, stop.error.message) == ("Deadline", "the Run reached its limit of 2 s")


@pytest.mark.behaviour("D13")
async def test_a_delegate_past_its_limit_is_an_error_result(project: Make) -> None:
    """The coordinator continues and completes."""
    replies = {"boss": [use(ask("slow", "x")), say("without")], "slow": [say("late") | {"delayMs": 60_000}]}
    result = await project(TEAM, replies).run("boss", "go", "--run-timeout", "3")
    assert result.code == 0, result.stderr
    assert [event.expert_key for event in result.of(StopRunByError)] == ["slow"]
    assert [event.text for event in result.of(CompleteRun)] == ["without"]


@pytest.mark.everywhere
async def test_a_job_past_its_limit_stops_and_can_be_resumed(project: Make) -> None:
    """Exit 1 and a sentence with the command that continues the job, which works."""
    made = project(ONE, {"one": [say("in the end") | {"delayMs": 5_000}]})
    result = await made.run("one", "go", "--job-id", "j", "--job-timeout", "3")
    assert result.code == 1, result.stderr
    assert "limit of 3 s; continue: perstack-orch resume j" in result.stderr
    assert json.loads((made.store / "jobs" / "j" / "job.json").read_text())["status"] == "stoppedByError"
    resumed = await made.command("resume", "--backend", made.backend, "j")
    assert (resumed.code, [event.text for event in resumed.of(CompleteRun)]) == (0, ["in the end"]), resumed.stderr
