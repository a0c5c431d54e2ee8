"""Whole jobs: coordinators and delegates, each Run in a Sandbox of its own."""

import json

import pytest

from orchestrator import tree
from orchestrator.wire import link
from orchestrator.wire.checkpoint import Status
from orchestrator.wire.message import TextPart, ToolResult
from orchestrator.wire.platform_event import InitializeRuntime
from orchestrator.wire.state_event import CompleteRun, FinishAllToolCalls, StartRun, StopRunByDelegate, StopRunByError
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


@pytest.mark.everywhere
async def test_d3_a_chain_of_delegates_comes_back_link_by_link(project: Make) -> None:
    """Boss asks right, right asks deep; each resumes when its own delegate is done."""
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


@pytest.mark.everywhere
@pytest.mark.in_production
async def test_d5_delegates_of_one_reply_run_at_once_beside_a_tool(project: Make) -> None:
    """A tool and two delegates in one reply: the tool's result first, the delegates' in call order, usage summed."""
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


@pytest.mark.everywhere
async def test_d13_a_failing_delegate_is_an_error_result(project: Make) -> None:
    """A delegate whose model refuses it ends in error; the coordinator reads why and completes."""
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


async def test_d13_a_delegate_at_its_step_limit_is_an_error_result(project: Make) -> None:
    """Steps count on through the job; a delegate that reaches the limit tells its coordinator."""
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
    """How many Runs a job has is bounded, or by depth and fan-out there could be more than anybody can pay."""
    monkeypatch.setattr(tree, "MAX_RUNS", 2)
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
    """Not the platform's: the job ends as with any Run that failed, and its events tell why."""
    monkeypatch.setattr(link, "FRAME_BYTES", 16 * 1024)
    long = [say("x" * 9_000)]
    made = project(TEAM, {"boss": [use(ask("left", "l"), ask("right", "r"))], "left": long, "right": long})
    async with running(made, "boss") as events:
        last = [recorded.event async for recorded in events][-1]
    assert isinstance(last, StopRunByError)
    assert events.outcome is not None
    assert "the Run cannot be handed over: a frame of" in (events.outcome.error or "")


async def test_d1_a_call_without_a_query_is_answered_and_the_run_goes_on(project: Make) -> None:
    """A delegate call that makes no sense gets an error result instead of ending the job."""
    result = await project(TEAM, {"boss": [use(("left", {})), say("then not")]}).run("boss", "go")
    assert result.code == 0, result.stderr
    assert result.of(StopRunByDelegate) == []


async def test_what_the_coordinator_stopped_with_stands_in_the_store(project: Make) -> None:
    """Checkpoints, settings, events and the job itself are on disk as the spec lays them out, without secrets."""
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
