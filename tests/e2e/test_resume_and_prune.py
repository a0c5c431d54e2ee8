"""Resuming what was cut off, and removing orphaned Sandboxes."""

import asyncio
import json
import signal

import pytest

from orchestrator.sandbox.naming import sandbox_name
from orchestrator.wire.event import CompleteRun
from tests.support.project import ONE, Make, Project, say, use

SLOW = {"one": [use(("listDirectory", {"path": "."})), say("done") | {"delayMs": 3_000}]}


async def _cut(project: Project, job: str, *options: str) -> None:
    """Kill the orchestrator, with no chance to clean up, while its Expert waits for the model a second time."""
    process = await project.start("run", "--backend", project.backend, "--job-id", job, *options, "one", "go")
    await _kill_after(process, b'"type":"startGeneration"', 2)


async def _kill_after(process: asyncio.subprocess.Process, words: bytes, count: int) -> None:
    assert process.stdout is not None
    seen = 0
    async with asyncio.timeout(60):
        while seen < count:
            line = await process.stdout.readline()
            assert line, "the command ended"
            seen += words in line
    process.kill()
    await process.communicate()


@pytest.mark.everywhere
async def test_resume_finishes_what_was_cut_off(project: Make) -> None:
    """One command, without Expert and query; finished steps are not done again, and a second time nothing is left."""
    made = project(ONE, SLOW)
    await _cut(made, "j")
    result = await made.command("resume", "--backend", made.backend, "j")
    assert result.code == 0, result.stderr
    assert [event.text for event in result.of(CompleteRun)] == ["done"]
    assert "callTools" not in result.types
    again = await made.command("resume", "--backend", made.backend, "j")
    assert (again.code, again.types) == (0, []), again.stderr
    unknown = await made.command("resume", "--backend", made.backend, "other")
    assert (unknown.code, "other" in unknown.stderr) == (2, True)


async def test_no_event_is_shown_twice_however_often_a_job_is_cut(project: Make) -> None:
    """The host's own events about a reattached Sandbox do not hide how far that Sandbox's own events had come."""
    made = project(ONE, SLOW)
    await _cut(made, "j", "--verbose")
    resuming = await made.start("resume", "--backend", made.backend, "--verbose", "j")
    await _kill_after(resuming, b'"type":"dockerContainerStatus"', 1)
    result = await made.command("resume", "--backend", made.backend, "--verbose", "j")
    assert result.code == 0, result.stderr
    log = json.loads((await made.command("log", "--json", "--take", "0", "--job", "j")).stdout)["events"]
    told = [(event["runId"], event["attempt"], event["seq"]) for event in log if "seq" in event]
    assert sum(event["type"] == "dockerContainerStatus" for event in log) == 3
    assert len(told) == len(set(told)) == max(seq for _, _, seq in told)


@pytest.mark.everywhere
async def test_a_cut_jobs_sandboxes_wait_for_resume_or_prune_all(project: Make) -> None:
    """Neither another job's start nor a plain prune takes them; prune --all does, and names them."""
    made = project(ONE, SLOW | {"two": [say("quick")]})
    (made.directory / "perstack.toml").write_text(
        (made.directory / "perstack.toml").read_text() + '[experts.two]\ninstruction = "Be quick."\n'
    )
    await _cut(made, "j")
    assert (await made.run("two", "go")).code == 0
    plain = await made.command("prune", "--backend", made.backend)
    assert (plain.code, plain.stdout) == (0, b""), plain.stderr
    everything = await made.command("prune", "--all", "--backend", made.backend)
    name = sandbox_name("j", 1, made.instance)
    assert (everything.code, everything.stdout.decode()) == (0, f"{name}\n"), everything.stderr
    assert (await made.command("resume", "--backend", made.backend, "j")).code == 0


async def test_a_start_removes_what_belongs_to_ended_jobs(project: Make) -> None:
    """A Sandbox whose job is over in the records is gone after the next job of the same store."""
    made = project(ONE, SLOW | {"two": [say("quick")]})
    (made.directory / "perstack.toml").write_text(
        (made.directory / "perstack.toml").read_text() + '[experts.two]\ninstruction = "Be quick."\n'
    )
    await _cut(made, "j")
    record = made.store / "jobs" / "j" / "job.json"
    record.write_text(record.read_text().replace('"running"', '"cancelled"'))
    result = await made.run("two", "go")
    assert result.code == 0, result.stderr
    assert sandbox_name("j", 1, made.instance) in result.stderr
    everything = await made.command("prune", "--all", "--backend", made.backend)
    assert (everything.code, everything.stdout) == (0, b""), everything.stderr
    assert (await made.command("resume", "--backend", made.backend, "j")).code == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
async def test_a_stopped_job_shows_all_that_it_stored_and_can_be_resumed(project: Make, number: signal.Signals) -> None:
    """The output has all events of the records; nothing keeps running; resume does the rest."""
    made = project(ONE, SLOW)
    process = await made.start("run", "--backend", made.backend, "--job-id", "j", "one", "go")
    assert process.stdout is not None
    async with asyncio.timeout(60):
        lines = [await process.stdout.readline()]
        while b'"continueToNextStep"' not in lines[-1]:
            lines.append(await process.stdout.readline())
        process.send_signal(number)
        rest, stderr = await process.communicate()
    assert process.returncode == 128 + number, stderr.decode()
    shown = [json.loads(line) for line in (*lines, *rest.splitlines())]
    log = json.loads((await made.command("log", "--json", "--take", "0")).stdout)
    assert (log["job"]["status"], log["events"]) == ("cancelled", shown)
    result = await made.command("resume", "--backend", made.backend, "--after", "0", "j")
    assert result.code == 0, result.stderr
    assert [json.loads(line) for line in result.stdout.splitlines()[: len(shown)]] == shown
    assert [event.text for event in result.of(CompleteRun)] == ["done"]


async def test_a_second_signal_stops_at_once(project: Make) -> None:
    """The command reports it, and the exit code is that of the first; nothing is left."""
    made = project(ONE, {"one": [say("late") | {"delayMs": 60_000}]})
    process = await made.start("run", "--backend", made.backend, "--job-id", "j", "one", "go")
    assert process.stdout is not None
    assert process.stderr is not None
    async with asyncio.timeout(60):
        while b'"startGeneration"' not in await process.stdout.readline():
            pass
        process.send_signal(signal.SIGINT)
        while b"stopping and removing Sandboxes" not in await process.stderr.readline():
            pass
        process.send_signal(signal.SIGTERM)
        _, stderr = await process.communicate()
    assert process.returncode == 130, stderr.decode()
    assert b"stopping immediately" in stderr
