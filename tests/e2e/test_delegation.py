"""Whole jobs: coordinators and delegates, each Run in a separate Sandbox."""

import json

import pytest

from orchestrator.jobs import run_tree
from orchestrator.wire import frames
from orchestrator.wire.checkpoint import Status
from orchestrator.wire.event import (
    CompleteRun,
    FinishAllToolCalls,
    InitializeRuntime,
    StartRun,
    StopRunByDelegate,
    StopRunByError,
)
from orchestrator.wire.message import TextPart, ToolResult
from tests.support.embedded import running
from tests.support.project import Make, Result, ask, say, use

TEAM = """
[experts.boss]
instruction = "Lead."
delegates = ["left", "right"]
[experts.left]
description = "Does the left half."
instruction = "Do the left half."
[experts.right]
instruction = "Do the right half."
delegates = ["deep"]
[experts.deep]
instruction = "Dig."
"""


def _results(result: Result) -> list[tuple[str, str]]:
    """Tool results that the last coordinator Run started from, as (skill, text)."""
    start: StartRun = [event for event in result.of(StartRun) if event.expert_key == "boss"][-1]
    answers: tuple[ToolResult, ...] = start.initial_checkpoint.partial_tool_results or ()
    texts = [part.text for answer in answers for part in answer.result if isinstance(part, TextPart)]
    return list(zip([answer.skill_name for answer in answers], texts, strict=True))


@pytest.mark.behaviour("D3")
@pytest.mark.everywhere
async def test_a_chain_of_delegates_comes_back_link_by_link(project: Make) -> None:
    """Each Expert resumes when its own delegate is done."""
    result = await project(
        TEAM,
        {
            "boss": [use(ask("right", "dig")), say("boss: all done")],
            "right": [use(ask("deep", "dig deeper")), say("right: dug")],
            "deep": [say("deep: found gold")],
        },
    ).run("boss", "go")
    assert result.code == 0, result.stderr
    assert result.control == [
        ("startRun", "boss"),
        ("stopRunByDelegate", "boss"),
        ("startRun", "right"),
        ("stopRunByDelegate", "right"),
        ("startRun", "deep"),
        ("completeRun", "deep"),
        ("startRun", "right"),
        ("completeRun", "right"),
        ("startRun", "boss"),
        ("completeRun", "boss"),
    ]
    assert _results(result) == [("delegate/right", "right: dug")]
    assert len({event.run_id for event in result.events}) == 5
    assert [event.position for event in result.events] == list(range(1, len(result.events) + 1))


@pytest.mark.behaviour("D5")
@pytest.mark.everywhere
@pytest.mark.in_production
async def test_delegates_of_one_reply_and_a_tool_run_at_once(project: Make) -> None:
    """The tool's result comes first, the delegates' follow in call order, and usage is summed."""
    usage = {"inputTokens": 10, "outputTokens": 1}
    result = await project(
        TEAM,
        {
            "boss": [
                use(("listDirectory", {"path": "."}), ask("left", "l"), ask("right", "r")) | {"usage": usage},
                say("both halves") | {"usage": usage},
            ],
            "left": [say("left half") | {"usage": usage, "delayMs": 400}],
            "right": [say("right half") | {"usage": usage}],
        },
    ).run("boss", "go")
    assert result.code == 0, result.stderr
    skills = [skill for skill, _ in _results(result)]
    assert skills == ["@perstack/base", "delegate/left", "delegate/right"]
    assert [text for _, text in _results(result)][1:] == ["left half", "right half"]
    done: list[CompleteRun] = result.of(CompleteRun)
    assert len(done) == 3
    assert done[-1].checkpoint.usage.total_tokens == 44
    ends = {event.expert_key: event.position for event in done}
    starts = {event.expert_name: event.position for event in result.of(InitializeRuntime)}
    assert starts["left"] < ends["right"] or starts["right"] < ends["left"]


@pytest.mark.behaviour("D13")
@pytest.mark.everywhere
async def test_a_failing_delegate_is_an_error_result(project: Make) -> None:
    """Its coordinator gets the reason and completes."""
    refusal = {"error": {"name": "AuthenticationError", "message": "the key is not valid", "statusCode": 401}}
    result = await project(
        TEAM,
        {"boss": [use(ask("left", "l"), ask("right", "r")), say("made the best of it")], "left": [refusal],
         "right": [say("right half")]},
    ).run("boss", "go")  # fmt: skip
    assert result.code == 0, result.stderr
    assert result.of(StopRunByError)[0].error.status_code == 401
    assert _results(result) == [
        ("delegate/left", "Delegate left failed: the key is not valid"),
        ("delegate/right", "right half"),
    ]


@pytest.mark.behaviour("D13")
async def test_a_delegate_at_its_step_limit_is_an_error_result(project: Make) -> None:
    """Steps count on through the job, and its coordinator gets the reason."""
    look = use(("listDirectory", {"path": "."}))
    result = await project(
        TEAM, {"boss": [use(ask("left", "l")), say("enough")], "left": [look, look, look, look]}
    ).run("boss", "go", "--max-steps", "3")
    assert "stopRunByExceededMaxSteps" in result.types
    assert "did not finish" in _results(result)[0][1]


async def test_delegation_deeper_than_allowed_is_an_error_result(project: Make) -> None:
    """A cycle of delegates is legal until it is too deep."""
    result = await project(
        '[experts.boss]\ninstruction = "Recur."\ndelegates = ["boss"]\n',
        {"boss": [use(ask("boss", "again")), say("back up")]},
    ).run("boss", "go")
    assert result.code == 0, result.stderr
    assert len(result.of(StopRunByDelegate)) == 9
    finished: list[FinishAllToolCalls] = result.of(FinishAllToolCalls)
    assert b"deeper than 8 levels" in finished[0].to_json()


async def test_delegates_beyond_the_job_s_limit_are_error_results(
    project: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The number of Runs in a job is limited; with depth and fan-out alone, costs could grow without bound."""
    monkeypatch.setattr(run_tree, "MAX_RUNS", 2)
    both = use(ask("left", "l"), ask("right", "r"))
    made = project(TEAM, {"boss": [both, both, say("done")], "left": [say("left half")], "right": [say("right half")]})
    async with running(made, "boss") as events:
        seen = [recorded.event async for recorded in events]
    assert events.outcome is not None
    assert events.outcome.text == "done"
    first, second = (event.to_json() for event in seen if isinstance(event, FinishAllToolCalls))
    assert b"its limit" not in first
    assert second.count(b"the job has had 2 Runs, which is its limit") == 2
    assert sum(isinstance(event, CompleteRun) for event in seen) == 3


async def test_a_conversation_too_long_to_hand_over_is_that_run_s_error(
    project: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is no error of the platform: the job ends as with any Run that failed, and its events have the reason."""
    monkeypatch.setattr(frames, "FRAME_BYTES", 16 * 1024)
    long = [say("x" * 9_000)]
    made = project(TEAM, {"boss": [use(ask("left", "l"), ask("right", "r"))], "left": long, "right": long})
    async with running(made, "boss") as events:
        last = [recorded.event async for recorded in events][-1]
    assert isinstance(last, StopRunByError)
    assert events.outcome is not None
    assert "the Run cannot be handed over: a frame of" in (events.outcome.error or "")


@pytest.mark.behaviour("D1")
async def test_a_delegate_call_without_a_query_is_an_error_result(project: Make) -> None:
    """The Run continues."""
    result = await project(TEAM, {"boss": [use(("left", {})), say("then not")]}).run("boss", "go")
    assert result.code == 0, result.stderr
    assert result.of(StopRunByDelegate) == []


async def test_what_the_coordinator_stopped_with_stands_in_the_store(project: Make) -> None:
    """The job's records are on disk as docs/reference/perstack.md#files-on-disk describes, without secrets."""
    made = project(TEAM, {"boss": [use(ask("left", "l")), say("done")], "left": [say("left half")]})
    result = await made.run("boss", "go", "--job-id", "job-1")
    assert result.code == 0, result.stderr
    job = made.store / "jobs" / "job-1"
    record = json.loads((job / "job.json").read_text())
    assert (record["status"], record["coordinatorExpertKey"]) == ("completed", "boss")
    statuses = [json.loads(path.read_text())["status"] for path in (job / "checkpoints").iterdir()]
    assert Status.STOPPED_BY_DELEGATE in statuses
    lines = [line for path in job.glob("runs/*/attempt-1/events.jsonl") for line in path.read_bytes().splitlines()]
    assert sorted(lines) == sorted(result.stdout.splitlines())
    assert len(list(job.glob("runs/*/run-setting.json"))) == 3
