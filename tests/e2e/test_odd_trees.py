"""Directory trees that Sandboxes leave: whatever they are, later commands of the same store work."""

import asyncio
import json
from pathlib import Path

import pytest

from orchestrator.plan.make_job import instance_of
from orchestrator.pool.state_directories import directory_of
from tests.support import hostile_image
from tests.support.odd_trees import DIG, dig, unremovable
from tests.support.project import ONE, PYTHON, Make, Project, say, use

SERVER = (Path(__file__).parents[1] / "support" / "mcp_servers" / "tools.py").read_text()
DIGGER = """
[experts.one]
instruction = "Do."
[experts.one.skills.digger]
type = "mcpStdioSkill"
command = "PYTHON"
args = ["-c", PROGRAM]
"""
IN_THE_STATE = DIG.replace("TOP", "'/run/perstack'")
HOSTILE = f"""
import sys
{IN_THE_STATE}
python = "/opt/perstack/bin/python"
os.execv(python, [python, "-I", "-m", "orchestrator.runtime", *sys.argv[1:]])
"""


def directories(made: Project) -> list[str]:
    """The state directories of its jobs."""
    return sorted(path.name for path in made.states.parent.glob(f"{made.states.name}*"))


async def still_works(made: Project) -> None:
    """Check that later commands work, and that nothing is left."""
    for _ in range(2):
        later = await made.run("one", "go")
        assert (later.code, later.types[-1], later.stderr.count("left over")) == (0, "completeRun", 0), later.stderr
    pruned = await made.command("prune", "--backend", made.backend)
    assert (pruned.code, pruned.stdout, pruned.stderr) == (0, b"", "")
    assert directories(made) == []


async def test_what_a_skill_leaves_while_its_tools_are_listed(project: Make, backend: str) -> None:
    """An `install` starts it, with a workspace, or where nothing is isolated a home, that is removed afterwards."""
    program = DIG.replace("TOP", "os.getcwd()" if backend == "process" else "'/workspace'") + SERVER
    toml = DIGGER.replace("PYTHON", PYTHON[backend]).replace("PROGRAM", json.dumps(program))
    made = project(toml, {"one": [say("done")]})
    installed = await made.command("install", "--backend", backend)
    assert (installed.code, installed.stderr) == (0, "")
    assert directories(made) == []
    await still_works(project(ONE, {"one": [say("done")]}))


@pytest.mark.docker
async def test_what_a_runtime_leaves_in_its_state_directory(tmp_path: Path) -> None:
    """Its own job ends as it does otherwise; so do the next ones."""
    image = hostile_image.built("digger", HOSTILE)
    made = Project.make(tmp_path / "project", "docker", ONE, {"one": [say("done")]})
    result = await made.run("one", "go", "--image", image)
    assert (result.code, result.types[-1]) == (0, "completeRun"), result.stderr
    assert directories(made) == []
    await still_works(made)


@pytest.mark.docker
async def test_resume_takes_such_a_job_up(tmp_path: Path) -> None:
    """Where its orchestrator was killed while the tree was there."""
    image = hostile_image.built("digger", HOSTILE)
    slow = {"one": [use(("listDirectory", {"path": "."})), say("done") | {"delayMs": 2_000}]}
    made = Project.make(tmp_path / "project", "docker", ONE, slow)
    process = await made.start("run", "--backend", "docker", "--job-id", "j", "--image", image, "one", "go")
    assert process.stdout is not None
    async with asyncio.timeout(60):
        while b"resolveToolResults" not in await process.stdout.readline():
            pass
    process.kill()
    await process.communicate()
    assert len(directories(made)) == 1
    resumed = await made.command("resume", "--backend", "docker", "--image", image, "j")
    assert (resumed.code, resumed.types[-1]) == (0, "completeRun"), resumed.stderr
    assert directories(made) == []
    made.script({"one": [say("done")]})
    await still_works(made)


async def test_what_cannot_be_removed_ends_no_command(project: Make) -> None:
    """Each prints once which directory it is and what to do; the outcome of the job is its own."""
    made = project(ONE, {"one": [say("done")]})
    instance = instance_of(made.store)
    left, other = (directory_of(instance, job) for job in ("gone", "other"))
    for directory in (left, other):
        (directory / "1").mkdir(parents=True)
        (directory / "lock").touch()
        dig(directory / "1")
    (left / "1" / "stays").touch()
    said = f"{left} is left over and cannot be removed: Operation not permitted; remove it with rm -rf,"
    with unremovable(left / "1" / "stays"):
        result = await made.run("one", "go")
        assert (result.code, result.types[-1]) == (0, "completeRun"), result.stderr
        pruned = await made.command("prune", "--backend", made.backend)
        assert (pruned.code, pruned.stdout) == (0, b""), pruned.stderr
        assert [text.count(said) for text in (result.stderr, pruned.stderr)] == [1, 1], result.stderr
        assert not other.exists()
    await still_works(made)
