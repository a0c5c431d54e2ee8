"""Continued jobs: with another query, with an answer, and after they were cut off."""

import asyncio
import signal

import pytest

from orchestrator.plan.make_job import instance_of
from orchestrator.sandbox.naming import sandbox_name
from orchestrator.wire.checkpoint import Checkpoint, Status
from orchestrator.wire.event import (
    CallInteractiveTool,
    CompleteRun,
    ContinueToNextStep,
    InitializeRuntime,
    StartGeneration,
    StartRun,
    StopRunByDelegate,
    StopRunByInteractiveTool,
)
from orchestrator.wire.message import TextPart
from tests.support import engine
from tests.support.project import ASKING, ONE, TEAM, Make, Result, ask, ended, refused, say, use


@pytest.mark.behaviour("D11")
async def test_a_finished_job_continues_with_another_query(project: Make) -> None:
    """There is one more startRun and completeRun; the conversation and the steps continue."""
    made = project(ONE, {"one": [say("first"), say("second")]})
    first = await made.run("one", "begin", "--job-id", "j")
    second = await made.run("one", "go ahead", "--continue")
    assert (first.code, second.code) == (0, 0), second.stderr
    assert second.types.count("startRun") == second.types.count("completeRun") == 1
    done: CompleteRun = second.of(CompleteRun)[0]
    assert (done.text, done.job_id, done.step_number) == ("second", "j", 2)
    assert second.events[0].position == len(first.events) + 1


async def test_the_most_recent_job_continues(project: Make) -> None:
    """It is not the one that began last."""
    made = project(ONE, {"one": [say("first"), say("second"), say("third")]})
    for job in ("earlier", "later"):
        assert (await made.run("one", "begin", "--job-id", job)).code == 0
    assert (await made.run("one", "go ahead", "--continue-job", "earlier")).code == 0
    again = await made.run("one", "go ahead", "--continue")
    assert (again.code, again.events[0].job_id) == (0, "earlier"), again.stderr


async def test_words_to_runs_that_ended_early_are_kept(project: Make) -> None:
    """Two Runs in a row are cut before their first step is over; the third has the instruction and all queries."""
    made = project(ONE, {"one": [say("late") | {"delayMs": 60_000}]})
    await made.run("one", "an important question", "--job-id", "j", "--run-timeout", "3")
    await made.run("one", "and another", "--continue", "--run-timeout", "3")
    made.script({"one": [say("both")]})
    again = await made.run("one", "go ahead", "--continue", "--events", "full")
    assert again.code == 0, again.stderr
    asked: StartGeneration = again.of(StartGeneration)[0]
    said = [part.text for message in asked.messages or () for part in message.contents if isinstance(part, TextPart)]
    assert "Do it." in said[0]
    assert said[1:] == ["an important question", "and another", "go ahead"]
    assert again.of(CompleteRun)[0].text == "both"


@pytest.mark.parametrize(
    ("failing", "code"),
    [
        ({"message": "later", "isRetryable": True, "retryAfterMs": 0}, 0),
        ({"message": "the key is not valid", "statusCode": 401}, 1),
    ],
)
async def test_a_call_that_failed_counts_among_those_before(
    project: Make, failing: dict[str, object], code: int
) -> None:
    """Whether it was retried or ended the Run, the conversation continues with the reply after the last one."""
    replies = [{"error": failing}, *([say("first")] if code == 0 else []), say("second")]
    made = project(ONE, {"one": replies})
    assert (await made.run("one", "begin", "--job-id", "j")).code == code
    again = await made.run("one", "go ahead", "--continue")
    assert again.code == 0, again.stderr
    assert again.of(CompleteRun)[0].text == "second"


@pytest.mark.behaviour("D9")
async def test_an_answer_completes_the_job(project: Make) -> None:
    """The job stops with exit code 4 at the question, and continues with -i."""
    made = project(ASKING, {"one": [use(("confirm", {"q": "ready?"})), say("then go")]})
    asked = await made.run("one", "begin", "--job-id", "j")
    assert asked.code == 4, asked.stderr
    assert asked.types[-1] == "stopRunByInteractiveTool"
    answered = await made.run("one", "yes", "--continue-job", "j", "-i")
    assert answered.code == 0, answered.stderr
    start: StartRun = answered.of(StartRun)[0]
    assert start.initial_checkpoint.status is Status.STOPPED_BY_INTERACTIVE_TOOL
    question: CallInteractiveTool = asked.of(CallInteractiveTool)[0]
    greeting: InitializeRuntime = answered.of(InitializeRuntime)[0]
    assert (greeting.query, greeting.interactive_tool_call) == (
        None,
        {"toolCallId": question.tool_call.id, "toolName": "confirm", "skillName": "user", "text": "yes"},
    )
    assert b"yes" in start.to_json()
    assert answered.of(CompleteRun)[0].text == "then go"


@pytest.mark.behaviour("D7")
async def test_two_questions_take_two_answers(project: Make) -> None:
    """The second question stays open after the first answer, which may name its call."""
    calls = use(("confirm", {"q": "one?"}), ("confirm", {"q": "two?"}))
    made = project(ASKING, {"one": [calls, say("thanks")]})
    await made.run("one", "begin", "--job-id", "j")
    again = await made.run("one", "1", "--continue", "-i")
    assert again.code == 4, again.stderr
    assert [name for name in again.types if "nteractive" in name or name == "resumeToolCalls"] == [
        "resumeToolCalls",
        "callInteractiveTool",
        "stopRunByInteractiveTool",
    ]
    assert (await made.run("one", "2", "--continue", "-i")).code == 0


async def test_what_does_not_fit_is_refused_and_changes_nothing(project: Make) -> None:
    """No answer to a question, an answer to none, unknown jobs and checkpoints, foreign ones, a changed Expert."""
    made = project(ASKING, {"one": [use(("confirm", {"q": "ready?"})), say("go")]})
    refused(await made.run("one", "go ahead", "--continue"), 2, "no job")
    other = await made.run("one", "begin", "--job-id", "i")
    foreign: str = other.of(StopRunByInteractiveTool)[0].checkpoint.id
    await made.run("one", "begin", "--job-id", "j")
    before = made.files()
    refused(await made.run("one", "go ahead", "--continue-job", "j"), 2, "-i", "ready?")
    refused(await made.run("one", "go ahead", "--continue-job", "other"), 2, "other")
    refused(await made.run("one", "go ahead", "--resume-from", "cp"), 2, "--continue-job")
    refused(await made.run("one", "x", "--continue-job", "j", "--resume-from", "absent"), 2, "absent")
    refused(
        await made.run("one", "yes", "--continue-job", "j", "-i", "--resume-from", foreign), 2, foreign, "not one of"
    )
    refused(await made.run("one", "x", "-i"), 2, "-i")
    toml = made.directory / "perstack.toml"
    kept = toml.read_text()
    toml.write_text(kept.replace("Do it.", "Do it otherwise."))
    refused(await made.run("one", "yes", "--continue", "-i"), 2, "other definitions of one")
    toml.write_text(kept)
    assert made.files() == before
    assert (await made.run("one", "yes", "--continue", "-i")).code == 0
    refused(await made.run("one", "yes", "--continue", "-i"), 2, "asked no question")


async def test_another_experts_work_is_not_continued(project: Make) -> None:
    """A delegate cannot take over its coordinator's job, nor the coordinator a checkpoint of its delegate's."""
    made = project(TEAM, {"boss": [use(ask("left", "l")), say("done")], "left": [say("half")]})
    began = await made.run("boss", "begin", "--job-id", "j")
    before = made.files()
    refused(await made.run("left", "x", "--continue"), 2, "job 'j' is one of Expert 'boss', not of 'left'")
    options = ("--continue-job", "j", "--resume-from")
    of_left: str = began.of(CompleteRun)[0].checkpoint.id
    refused(await made.run("boss", "x", *options, of_left), 2, of_left, "delegate 'left'", "a checkpoint of this one")
    waiting: str = began.of(StopRunByDelegate)[0].checkpoint.id
    refused(await made.run("boss", "x", *options, waiting), 2, waiting, "waits for the results of its delegates")
    assert made.files() == before


async def test_a_job_continues_from_the_checkpoint_that_is_named(project: Make) -> None:
    """The conversation is what it was there: later messages are not in it, and stay in the records."""
    made = project(ONE, {"one": [say("first"), say("second"), say("third")]})
    first = await made.run("one", "begin", "--job-id", "j")
    end: Checkpoint = first.of(CompleteRun)[0].checkpoint
    assert (await made.run("one", "a wrong turn", "--continue")).code == 0
    options = ("--continue-job", "j", "--resume-from", end.id)
    again = await made.run("one", "another way", *options, "--events", "full")
    assert again.code == 0, again.stderr
    asked: StartGeneration = again.of(StartGeneration)[0]
    said = [part.text for message in asked.messages or () for part in message.contents if isinstance(part, TextPart)]
    assert said[1:] == ["begin", "first", "another way"]
    assert again.of(CompleteRun)[0].text == "second"
    assert b"a wrong turn" in (await made.command("log", "--json", "--take", "0")).stdout


async def test_a_checkpoint_of_a_run_that_was_cut_off_is_refused(project: Make) -> None:
    """Nothing else is done instead: the error names the command that finishes the Run, and then the job continues."""
    made = project(ONE, {"one": [use(("listDirectory", {"path": "."})), say("slow") | {"delayMs": 3_000}, say("then")]})
    process = await made.start("run", "--backend", made.backend, "--job-id", "j", "one", "go")
    assert process.stdout is not None
    seen: list[bytes] = []
    async with asyncio.timeout(60):
        while sum(b'"type":"startGeneration"' in line for line in seen) < 2:
            seen.append(await process.stdout.readline())
    process.send_signal(signal.SIGTERM)
    assert (await ended(process)).code == 143
    step: ContinueToNextStep = Result(0, b"".join(seen), "").of(ContinueToNextStep)[0]
    options = ("--continue-job", "j", "--resume-from", step.checkpoint.id)
    before = made.files()
    refused(await made.run("one", "x", *options), 2, step.checkpoint.id, "cut off", "perstack-orch resume j")
    assert made.files() == before
    assert (await made.command("resume", "--backend", made.backend, "j")).code == 0
    again = await made.run("one", "x", *options)
    assert (again.code, again.of(CompleteRun)[0].text) == (0, "then"), again.stderr


async def test_corrupt_records_are_reported_and_left_alone(project: Make) -> None:
    """A truncated checkpoint is named, whether requested or the last; nothing is overwritten or done again."""
    made = project(ONE, {"one": [say("first"), say("second")]})
    await made.run("one", "begin", "--job-id", "j")
    for path in (made.store / "jobs" / "j" / "checkpoints").iterdir():
        path.write_text(path.read_text()[:100])
    before = made.files()
    for options in (("--continue",), ("--continue-job", "j"), ("--continue-job", "j", "--resume-from", path.stem)):
        refused(await made.run("one", "x", *options), 2, path.stem, "is damaged")
    assert made.files() == before


async def test_of_two_at_once_the_second_is_refused(project: Make) -> None:
    """A job that another command works on is locked."""
    made = project(ONE, {"one": [say("slow") | {"delayMs": 60_000}]})
    process = await made.start("run", "--backend", made.backend, "--job-id", "j", "one", "go")
    assert process.stdout is not None
    await asyncio.wait_for(process.stdout.readline(), 60)
    refused(await made.run("one", "x", "--continue-job", "j"), 2, "j")
    process.send_signal(signal.SIGTERM)
    assert (await ended(process)).code == 143


async def test_a_killed_job_continues_where_it_was(project: Make) -> None:
    """After kill -9 in a tree, finished Runs are not done again and the cut one starts again."""
    made = project(
        TEAM,
        {
            "boss": [use(ask("left", "l"), ask("right", "r")), say("both"), say("and more")],
            "left": [say("left half")],
            "right": [use(("listDirectory", {"path": "."})), say("right half") | {"delayMs": 3_000}],
        },
    )
    process = await made.start("run", "--backend", made.backend, "--job-id", "j", "boss", "go")
    assert process.stdout is not None
    seen: list[bytes] = []
    async with asyncio.timeout(60):
        while sum(b'"type":"completeRun"' in line for line in seen) < 1 or not any(b"listDir" in s for s in seen):
            seen.append(await process.stdout.readline())
    process.kill()
    await process.wait()
    result = await made.run("boss", "more", "--continue-job", "j")
    assert result.code == 0, result.stderr
    assert [event.text for event in result.of(CompleteRun)] == ["right half", "both", "and more"]
    assert {event.attempt for event in result.of(StartRun) if event.expert_key == "right"} <= {2}


@pytest.mark.docker
@pytest.mark.parametrize("backend", ["docker"])
async def test_a_lost_container_begins_a_new_attempt_from_its_last_step(project: Make) -> None:
    """After its container was killed, a Run continues: no step is done twice, no reply requested twice."""
    made = project(
        ONE,
        {
            "one": [
                use(("writeTextFile", {"path": "log", "text": "a"})),
                use(("appendTextFile", {"path": "log", "text": "b"})),
                say("done") | {"delayMs": 2_000},
            ]
        },
    )
    process = await made.start("run", "--job-id", "lost", "one", "go")
    assert process.stdout is not None
    seen: list[bytes] = []
    async with asyncio.timeout(60):
        while sum(b'"type":"startGeneration"' in line for line in seen) < 3:
            seen.append(await process.stdout.readline())
    engine.kill(sandbox_name("lost", 1, instance_of(made.store)))
    result = await ended(process)
    assert result.code == 0, result.stderr
    later = result.of(StartRun)
    assert [(event.attempt, event.step_number) for event in later] == [(2, 3)]
    assert result.of(CompleteRun)[0].text == "done"
    assert (made.workspace / "log").read_text() == "ab"
    assert len(list(made.store.glob("jobs/lost/runs/*/replies/*.json"))) == 3
