"""The example that the README shows, on every backend; on Docker, what its containers look like from outside."""

import asyncio
import json
import shutil
from pathlib import Path

import pytest

from orchestrator.wire.event import CompleteRun
from tests.support import engine
from tests.support.project import Project, ended
from tests.support.submitted_project import project_at

EXAMPLE = Path(__file__).parents[2] / "examples" / "fitness"
QUERY = "Start today's session"
ENV = {"ANTHROPIC_API_KEY": "canary-key-5f1d", "FITNESS_NOTE": "canary-note-77aa"}


@pytest.fixture
def fitness(tmp_path: Path, backend: str) -> Project:
    """A copy of the example in a separate directory."""
    directory = tmp_path / "fitness"
    directory.mkdir()
    for name in ("perstack.toml", "replies.json"):
        shutil.copy(EXAMPLE / name, directory)
    return project_at(directory, backend)


@pytest.mark.behaviour("B5")
@pytest.mark.everywhere
@pytest.mark.in_production
async def test_the_example_runs_and_keeps_its_log(fitness: Project) -> None:
    """There are three Runs, seven model calls, a result, and a log that the workspace's owner owns."""
    result = await fitness.run("fitness-assistant", QUERY)
    assert result.code == 0, result.stderr
    assert result.control == [
        ("startRun", "fitness-assistant"),
        ("stopRunByDelegate", "fitness-assistant"),
        ("startRun", "pro-trainer"),
        ("completeRun", "pro-trainer"),
        ("startRun", "fitness-assistant"),
        ("completeRun", "fitness-assistant"),
    ]
    assert result.of(CompleteRun)[-1].text.strip()
    assert len(list(fitness.store.glob("jobs/*/runs/*/replies/*.json"))) == 7
    log = fitness.workspace / "fitness-log.md"
    assert "#" in log.read_text()
    owner, kept = fitness.workspace.stat(), log.stat()
    assert (kept.st_uid, kept.st_gid) == (owner.st_uid, owner.st_gid)
    assert kept.st_uid != 0 or fitness.backend == "process"


async def test_a_second_run_continues_in_the_same_workspace(fitness: Project) -> None:
    """Running it again finds yesterday's log and another job in the store."""
    for _ in range(2):
        result = await fitness.run("fitness-assistant", QUERY)
        assert result.code == 0, result.stderr
    assert len(list((fitness.store / "jobs").iterdir())) == 2


@pytest.mark.behaviour("G18")
@pytest.mark.docker
@pytest.mark.parametrize("backend", ["docker"])
async def test_each_run_has_a_container_without_network_key_or_query(fitness: Project) -> None:
    """Seen from outside, no container has a network, and no key, variable or query is in any of them."""
    toml = fitness.directory / "perstack.toml"
    toml.write_text(toml.read_text())
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        watching = group.create_task(engine.inspect_started(stop))
        process = await fitness.start(
            "run", "--env", "FITNESS_NOTE", "--job-id", "fitness-1", "fitness-assistant", QUERY, env=ENV
        )
        result = await ended(process)
        stop.set()
    assert result.code == 0, result.stderr
    mine = [each for each in watching.result() if str(each["Name"]).startswith("/fitness-1")]
    assert len(mine) == 3
    text = json.dumps(mine)
    for secret in (*ENV.values(), QUERY, "session"):
        assert secret not in text
    for container in mine:
        host = container["HostConfig"]
        assert isinstance(host, dict)
        assert host["NetworkMode"] == "none"
        assert host["ReadonlyRootfs"] is True
        assert host["CapDrop"] == ["ALL"]
        assert "no-new-privileges" in host["SecurityOpt"]


@pytest.mark.parametrize("backend", ["process"])
async def test_no_secret_in_anything_a_run_leaves(fitness: Project) -> None:
    """The provider's key and a granted variable stand in no file, event or message."""
    result = await fitness.run("fitness-assistant", QUERY, "--env", "FITNESS_NOTE", env=ENV)
    assert result.code == 0, result.stderr
    written = fitness.files()
    for secret in ENV.values():
        assert secret.encode() not in b"".join([*written, result.stdout, result.stderr.encode()])
