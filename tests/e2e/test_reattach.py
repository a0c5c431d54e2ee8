"""The orchestrator is killed; another reattaches to its Sandboxes where they are."""

import asyncio
import json
import os
import signal
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from orchestrator.pool.state_directories import directory_of
from orchestrator.wire.event import CompleteRun
from orchestrator.wire.layout import SOCKET_DIRECTORY_NAME, SOCKET_NAME
from tests.support import cluster, engine
from tests.support.processes import command_lines
from tests.support.project import ONE, PYTHON, SECONDS, TEAM, Make, Project, Result, ask, say, use

WORKING = "import time; open('count', 'a').write('once\\n'); time.sleep(4); open('count', 'a').write('done\\n')"


def _working(backend: str) -> tuple[str, dict[str, Any]]:
    """A command that takes a while and counts how often it is run."""
    arguments = {"args": ["-c", WORKING], "env": {}, "cwd": ".", "stdout": True, "stderr": True}
    return ("exec", {"command": PYTHON[backend], **arguments})


async def _killed(made: Project, until: Sequence[tuple[str, str]], *arguments: str) -> list[dict[str, Any]]:
    """Kill the orchestrator of a new job, with no chance to clean up, once it published all of `until`: see below."""
    return await _killed_at(made, until, "--job-id", "j", *arguments)


async def _killed_at(made: Project, until: Sequence[tuple[str, str]], *arguments: str) -> list[dict[str, Any]]:
    """The same for any job; `until` are events by type and Expert."""
    process = await made.start("run", "--backend", made.backend, *arguments)
    assert process.stdout is not None
    events: list[dict[str, Any]] = []
    async with asyncio.timeout(SECONDS):
        while not set(until) <= {(event["type"], event.get("expertKey", "")) for event in events}:
            events.append(json.loads(await process.stdout.readline()))
    process.kill()
    rest, _ = await process.communicate()
    return [*events, *(json.loads(line) for line in rest.splitlines())]


async def _taken_up(made: Project, before: list[dict[str, Any]]) -> tuple[Result, list[dict[str, Any]]]:
    """Resume after the last event seen; return the result, and all events: none may be missing or repeated."""
    last = str(before[-1]["position"])
    result = await made.command("resume", "--backend", made.backend, "--verbose", "--after", last, "j")
    stored = json.loads((await made.command("log", "--job", "j", "--json", "--take", "0")).stdout)["events"]
    assert [event["position"] for event in stored] == list(range(1, len(stored) + 1))
    numbered = [(event["runId"], event["attempt"], event["seq"]) for event in stored if "seq" in event]
    assert len(numbered) == len(set(numbered))
    assert [*before, *(json.loads(line) for line in result.stdout.splitlines())] == stored
    return result, stored


def _attempts(events: list[dict[str, Any]]) -> set[int]:
    return {event["attempt"] for event in events if "attempt" in event}


@pytest.mark.everywhere
async def test_a_tool_that_is_at_work_is_not_started_again(project: Make, backend: str) -> None:
    """The Sandbox continues without an orchestrator, and the next one takes its result: one attempt."""
    made = project(ONE, {"one": [use(_working(backend)), say("all done")]})
    before = await _killed(made, [("callTools", "one")], "one", "go")
    result, events = await _taken_up(made, before)
    assert result.code == 0, result.stderr
    assert (made.workspace / "count").read_text() == "once\ndone\n"
    assert _attempts(events) == {1}
    assert [event["type"] for event in events].count("startRun") == 1
    assert events[-1]["text"] == "all done"


@pytest.mark.everywhere
async def test_a_run_after_the_checkpoint_that_the_user_chose_is_ended(project: Make, backend: str) -> None:
    """A Run that an orchestrator left at work is ended when the job continues before it, since they share files."""
    made = project(ONE, {"one": [say("first"), use(_working(backend)), say("done")]})
    begun = await made.run("one", "begin", "--job-id", "j")
    end: str = begun.of(CompleteRun)[0].checkpoint.id
    await _killed_at(made, [("callTools", "one")], "--continue-job", "j", "one", "a wrong turn")
    again = await made.run("one", "another way", "--continue-job", "j", "--resume-from", end)
    assert again.code == 0, again.stderr
    assert (made.workspace / "count").read_text() == "once\nonce\ndone\n"


@pytest.mark.everywhere
async def test_running_delegates_are_reattached(project: Make, backend: str) -> None:
    """Both are, and the coordinator continues with both results; nothing of the first orchestrator is left."""
    replies = {
        "boss": [use(ask("left", "go"), ask("right", "go")), say("both done")],
        "left": [use(_working(backend)), say("left done")],
        "right": [say("right done") | {"delayMs": 3000}],
    }
    made = project(TEAM, replies)
    before = await _killed(made, [("callTools", "left"), ("startGeneration", "right")], "boss", "go")
    result, events = await _taken_up(made, before)
    assert result.code == 0, result.stderr
    assert (made.workspace / "count").read_text() == "once\ndone\n"
    assert events[-1]["text"] == "both done"
    ends = [(event["type"], event["expertKey"]) for event in events if event["type"] == "completeRun"]
    assert sorted(ends) == [("completeRun", "boss"), ("completeRun", "left"), ("completeRun", "right")]
    assert _attempts(events) == {1}


@pytest.mark.everywhere
async def test_a_run_whose_sandbox_is_gone_begins_a_new_attempt(project: Make, backend: str) -> None:
    """The Sandbox was killed too: the attempt starts from its last checkpoint, without calls that were answered."""
    replies = {"one": [use(("writeTextFile", {"path": "x", "text": "y"})), use(_working(backend)), say("all done")]}
    made = project(ONE, replies)
    before = await _killed(made, [("continueToNextStep", "one"), ("callTools", "one")], "one", "go")
    _kill_sandboxes(made)
    result, events = await _taken_up(made, before)
    assert result.code == 0, result.stderr
    assert _attempts(events) == {1, 2}
    assert [event["type"] for event in events if event.get("attempt") == 2].count("startGeneration") == 2
    assert events[-1]["text"] == "all done"


@pytest.mark.everywhere
async def test_a_second_orchestrator_is_refused(project: Make, backend: str) -> None:
    """While one works on a job no other does; the error names that process."""
    made = project(ONE, {"one": [say("done") | {"delayMs": 60_000}]})
    process = await made.start("run", "--backend", backend, "--job-id", "j", "one", "go")
    assert process.stdout is not None
    async with asyncio.timeout(SECONDS):
        await process.stdout.readline()
        second = await made.command("resume", "--backend", backend, "j")
        assert (second.code, second.stdout) == (2, b"")
        assert f"in use by another orchestrator (process {process.pid})" in second.stderr
        process.terminate()
        await process.communicate()
    assert process.returncode == 143


IMPATIENT = """
import json, socket, time

attach = b'{{"type":"attach"}}'
answers, away, until = [], 0, time.monotonic() + 60
while time.monotonic() < until and not (away and answers):
    with socket.socket(socket.AF_UNIX) as broker:
        broker.settimeout(10)
        try:
            broker.connect({socket!r})
            broker.sendall(len(attach).to_bytes(4, "big") + attach)
            answer = broker.recv(65536)[4:].decode()
        except OSError:
            away += 1
            time.sleep(0.001)
            continue
        if away and answer:
            answers.append(answer)
open("answers", "w").write(json.dumps(answers))
"""
"""Connects to the broker again and again, and gets an answer once it was away and is back."""


@pytest.mark.parametrize("backend", ["process"])
async def test_a_tool_that_is_at_the_door_before_its_sandbox_is_refused(project: Make, backend: str) -> None:
    """Without isolation it reaches the socket; after a restart it gets no Run, and does not block the Sandbox."""
    state = directory_of(project(ONE, {}).instance, "j") / "1"
    script = IMPATIENT.format(socket=str(state / SOCKET_DIRECTORY_NAME / SOCKET_NAME))
    tool = {"command": PYTHON[backend], "args": ["-c", script], "env": {}, "cwd": ".", "stdout": True, "stderr": True}
    made = project(ONE, {"one": [use(("exec", tool)), say("all done")]})
    before = await _killed(made, [("callTools", "one")], "one", "go")
    result, events = await _taken_up(made, before)
    assert result.code == 0, result.stderr
    assert (events[-1]["text"], _attempts(events)) == ("all done", {1})
    (answer,) = json.loads((made.workspace / "answers").read_text())
    # The Sandbox waits up to a second before it connects again, the tool does not; but their order is not certain.
    assert json.loads(answer)["refused"] in {
        "this Sandbox has begun its Run, and comes back with the key to it",
        "this Sandbox is attached already",
    }


@pytest.mark.parametrize("replaced", ["gone", "a link", "a pipe", "cut"])
@pytest.mark.parametrize("backend", ["process"])
async def test_a_spool_that_is_not_what_it_was(project: Make, backend: str, replaced: str) -> None:
    """It was replaced while no orchestrator ran: the Run ends in an error that names it, and no link is followed."""
    made = project(ONE, {"one": [use(_working(backend)), say("all done")]})
    before = await _killed(made, [("callTools", "one")], "one", "go")
    _kill_sandboxes(made)
    spool = _spool(made)
    secret = made.directory / "secret"
    secret.write_text('{"type": "canary"}\n')
    if replaced == "cut":
        os.truncate(spool, 10)
    else:
        spool.unlink()
    if replaced == "a link":
        spool.symlink_to(secret)
    if replaced == "a pipe":
        os.mkfifo(spool)
    result, events = await _taken_up(made, before)
    assert "canary" not in json.dumps(events)
    if replaced == "cut":
        # No event of it is missing in the records, so there is no error.
        assert result.code == 0, result.stderr
    else:
        assert result.code == 1, result.stderr
        assert "the event spool is gone, or no longer a file" in result.stderr


def _spool(made: Project) -> Path:
    return next(made.states.parent.glob(f"{made.states.name}*/1/events.jsonl"))


def _kill_sandboxes(made: Project) -> None:
    if made.backend == "docker":
        for name in engine.containers(made.instance):
            engine.kill(name)
        return
    if made.in_cluster:
        cluster.force_delete(made.instance)
        return
    prefix = str(made.states).encode()
    for process, command in command_lines():
        if prefix in command:
            with suppress(ProcessLookupError):  # It may have ended since, with its group.
                os.killpg(process, signal.SIGKILL)
