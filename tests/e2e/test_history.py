"""A job that ran is read back, recorded, and replayed from the record."""

import asyncio
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from orchestrator.sandbox.naming import sandbox_name
from orchestrator.wire.event import CallTools, CompleteRun, Event, Retry, StartRun
from tests.support import engine
from tests.support.project import COMMAND, ONE, Project, Result, ask, ended, say, use

TEAM = """
[experts.boss]
instruction = "Lead."
delegates = ["half", "other"]
[experts.half]
instruction = "Do a half."
delegates = ["other"]
[experts.other]
instruction = "Help."
"""

LOOK = ("listDirectory", {"path": "."})
USAGE = {"usage": {"inputTokens": 7, "outputTokens": 2}}
BUSY = {"error": {"name": "Overloaded", "message": "later", "statusCode": 529, "isRetryable": True, "retryAfterMs": 1}}
REFUSED = {"error": {"name": "AuthenticationError", "message": "the key is not valid", "statusCode": 401}}

REPLIES = {
    "boss": [
        use(LOOK, ask("half", "the left"), ask("half", "the left and more"), text="both") | USAGE,
        use(ask("other", "last")) | {"reasoning": "one more thing, and a long thought about it"} | USAGE,
        say("all done") | USAGE,
    ],
    "half": [
        {"when": "and more", "replies": [BUSY, use(ask("other", "deep")), use(("attemptCompletion", {})), say("more")]},
        {"when": "left", "replies": [{"text": ""}, use(LOOK) | USAGE, say("left") | {"delayMs": 50}]},
    ],
    "other": [{"when": "deep", "replies": [use(LOOK, LOOK), say("dug")]}, {"when": "last", "replies": [REFUSED]}],
}


def _runs(result: Result) -> Counter[tuple[Any, ...]]:
    """Every Run as its Expert and the sequence of its events, with the arguments of each tool call."""
    runs: dict[str, list[Any]] = {}
    for event in result.events:
        runs.setdefault(event.run_id, []).append(_outline(event))
    return Counter(tuple(outline) for outline in runs.values())


async def _replayed(made: Project, directory: Path, toml: str, expert: str) -> Result:
    """Record the job of a project, and run it again from that alone."""
    recorded = await made.command("record", "job-1")
    assert (recorded.code, recorded.stderr) == (0, "")
    again = Project.make(directory, made.backend, toml, json.loads(recorded.stdout))
    replayed = await again.run(expert, "go", "--job-id", "job-2")
    assert replayed.code == 0, replayed.stderr
    return replayed


def _answered(result: Result) -> list[tuple[Any, ...]]:
    """What the model calls of a job of one Run came to, in order, whichever attempt made them."""
    return [_outline(event) for event in result.events if isinstance(event, CallTools | CompleteRun | Retry)]


def _outline(event: Event) -> tuple[Any, ...]:
    calls = event.tool_calls if isinstance(event, CallTools) else ()
    asked = tuple((call.tool_name, json.dumps(call.args, sort_keys=True)) for call in calls)
    return (event.type, getattr(event, "expert_key", None), getattr(event, "step_number", None), asked)


@pytest.mark.parametrize("backend", ["process"])
async def test_a_recorded_job_replays_the_same(tmp_path: Path, backend: str) -> None:
    """Parallel and nested delegates, retries, failures: each Run has the same events and tool calls again."""
    made = Project.make(tmp_path / "first", backend, TEAM, REPLIES)
    original = await made.run("boss", "go", "--job-id", "job-1")
    assert original.code == 0, original.stderr
    assert {"retry", "stopRunByError", "startStreamingReasoning", "attemptCompletion"} <= set(original.types)

    replayed = await _replayed(made, tmp_path / "again", TEAM, "boss")
    assert _runs(replayed) == _runs(original)


@pytest.mark.docker
@pytest.mark.parametrize("backend", ["docker"])
async def test_a_job_that_lost_a_container_replays_the_same(tmp_path: Path, backend: str) -> None:
    """What the first attempt finished and the second continued is recorded once, failures included."""
    replies = {"one": [BUSY, use(LOOK), use(LOOK, text="again"), say("done") | {"delayMs": 2_000}]}
    made = Project.make(tmp_path / "first", backend, ONE, replies)
    process = await made.start("run", "--job-id", "job-1", "one", "go")
    assert process.stdout is not None
    seen: list[bytes] = []
    async with asyncio.timeout(60):
        while sum(b'"type":"startGeneration"' in line for line in seen) < 4:
            seen.append(await process.stdout.readline())
    engine.kill(sandbox_name("job-1", 1, made.instance))
    rest = await ended(process)
    assert rest.code == 0, rest.stderr
    original = Result(rest.code, b"".join(seen) + rest.stdout, rest.stderr)
    assert {event.attempt for event in original.of(StartRun)} == {1, 2}

    replayed = await _replayed(made, tmp_path / "again", ONE, "one")
    assert _answered(replayed) == _answered(original)


@pytest.mark.parametrize("backend", ["process"])
async def test_the_log_shows_what_ran(tmp_path: Path, backend: str) -> None:
    """The events of stdout are those of the log; the tree of Runs holds the delegates and adds up to the job."""
    made = Project.make(tmp_path / "first", backend, TEAM, REPLIES)
    assert (await made.command("log")).stdout == b"No data found\n"
    result = await made.run("boss", "go")
    log = json.loads((await made.command("log", "--json", "--take", "0")).stdout)
    assert log["events"] == [json.loads(line) for line in result.stdout.splitlines()]
    assert log["job"]["status"] == "completed"
    shown = json.loads((await made.command("log", "--runs", "--json")).stdout)
    assert [run["expertKey"] for run in shown["runs"]] == ["boss"] * 3
    assert sorted(run["expertKey"] for run in shown["runs"][0]["runs"]) == ["half"] * 3
    assert shown["usage"] == log["job"]["usage"]
    (made.directory / "prices.toml").write_text('["scripted/claude-sonnet-4-5"]\ninput = 1000\noutput = 10000\n')
    priced = json.loads((await made.command("log", "--runs", "--json", "--prices", "prices.toml")).stdout)
    each = 7 * 0.001 + 2 * 0.01
    assert [round(run["cost"] / each) for run in priced["runs"]] == [1, 1, 1]
    assert priced["cost"] == pytest.approx(each * 4)
    assert "cost" not in shown
    table = await made.command("log", env={"PERSTACK_STORAGE_PATH": str(made.store)})
    assert (table.code, "half: the left and more" in table.stdout.decode()) == (0, True)


@pytest.mark.parametrize("backend", ["process"])
async def test_a_reader_that_stops_reading_ends_the_command_quietly(tmp_path: Path, backend: str) -> None:
    """As in `| head`: the exit code is a shell's for that, and not that of an Expert's error."""
    made = Project.make(tmp_path / "first", backend, ONE, {"one": [say("done")]})
    assert (await made.run("one", "go")).code == 0
    for arguments in (("log",), ("log", "--json"), ("explain", "--backend", backend, "one")):
        reading, writing = os.pipe()
        os.close(reading)
        process = await asyncio.create_subprocess_exec(
            *COMMAND, *arguments, cwd=made.directory, stdout=writing, stderr=asyncio.subprocess.PIPE
        )
        os.close(writing)
        _, said = await process.communicate()
        assert (process.returncode, said) == (141, b""), arguments


@pytest.mark.parametrize("backend", ["process"])
async def test_characters_that_the_terminal_cannot_show_are_replaced(tmp_path: Path, backend: str) -> None:
    """A terminal of another encoding gets a question mark for what it does not know, and no error."""
    made = Project.make(tmp_path / "first", backend, ONE, {"one": [say("left \u2192 right")]})
    result = await made.command("start", "--backend", backend, "one", "go", env={"PYTHONIOENCODING": "latin-1"})
    assert (result.code, b"left ? right" in result.stdout) == (0, True), result.stderr
