"""Taking up what was cut off, and removing what nobody answers for."""

import asyncio

from orchestrator.wire.state_event import CompleteRun
from tests.support.project import ONE, Make, Project, say, use

SLOW = {"one": [use(("listDirectory", {"path": "."})), say("done") | {"delayMs": 3_000}]}


async def _cut(project: Project, job: str) -> None:
    """Kill the orchestrator, with no chance to clear up, while its Expert waits for the model a second time."""
    process = await project.start("run", "--backend", project.backend, "--job-id", job, "one", "go")
    assert process.stdout is not None
    generations = 0
    async with asyncio.timeout(60):
        while generations < 2:
            generations += b'"type":"startGeneration"' in await process.stdout.readline()
    process.kill()
    await process.communicate()


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
    assert (everything.code, everything.stdout) == (0, b"j-s1\n"), everything.stderr
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
    assert "j-s1" in result.stderr
    everything = await made.command("prune", "--all", "--backend", made.backend)
    assert (everything.code, everything.stdout) == (0, b""), everything.stderr
    assert (await made.command("resume", "--backend", made.backend, "j")).code == 0
