"""Whole jobs on an engine of another machine, through ssh."""

import asyncio
import json
import os
import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.sandbox.api import STATE_ROOT
from orchestrator.wire.event import CompleteRun, SkillConnected
from tests.support.packages import ASK_TIME, CALLS, EVERYTHING, TIME, TIME_ONLY, results
from tests.support.project import ONE, SECONDS, TEAM, Make, Project, Result, ask, ended, say, use
from tests.support.remote_engine import RemoteEngine, remote_engine, ssh_processes

pytestmark = [pytest.mark.docker, pytest.mark.sshd, pytest.mark.parametrize("backend", ["docker"])]

EXAMPLES = Path(__file__).parents[2] / "examples"
WORK = {
    "boss": [use(ask("left", "go"), ask("right", "go")), say("both done")],
    "left": [use(("writeTextFile", {"path": "left.txt", "text": "x"})) | {"delayMs": 1000}, say("left done")],
    "right": [say("right done") | {"delayMs": 2000}],
}


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RemoteEngine]:
    """Give another machine with an engine, which has none of the files of projects and Sandboxes."""
    with remote_engine(tmp_path_factory.mktemp("m") / "far", STATE_ROOT, tmp_path_factory.getbasetemp()) as found:
        yield found


async def test_an_ssh_that_is_killed_in_the_middle_of_a_job(project: Make, machine: RemoteEngine) -> None:
    """The job ends as without it: each event once and in order, the files here, and nothing left on either machine."""
    made = project(TEAM, WORK)
    env = {**machine.environ, "DOCKER_HOST": "ssh://far"}
    process = await made.start("run", "--backend", "docker", "boss", "go", env=env)
    async with asyncio.timeout(SECONDS):
        assert process.stdout is not None
        first = [await process.stdout.readline() for _ in range(12)]
        for each in ssh_processes(machine):
            os.kill(each, signal.SIGKILL)
        rest, stderr = await process.communicate()
    result = Result(process.returncode or 0, b"".join(first) + rest, stderr.decode())
    assert result.code == 0, result.stderr
    assert "ssh to the engine at ssh://far ended" in result.stderr
    assert [event.position for event in result.events] == list(range(1, len(result.events) + 1))
    assert [event.text for event in result.of(CompleteRun)][-1] == "both done"
    assert (made.workspace / "left.txt").read_text() == "x"
    assert machine.containers() == []
    assert ssh_processes(machine) == []


async def test_a_host_key_that_is_not_known(project: Make, machine: RemoteEngine) -> None:
    """The command asks no question: it prints one sentence, and exits with the code of a failed platform."""
    machine.configure(known=Path("/dev/null"))
    try:
        result = await project(ONE, {"one": []}).run("one", "go", env={**machine.environ, "DOCKER_HOST": "ssh://far"})
    finally:
        machine.configure()
    assert (result.code, result.stdout) == (3, b"")
    (told,) = [line for line in result.stderr.splitlines() if "host key" in line]
    assert "(ssh: Host key verification failed); run `ssh far` once and compare the fingerprint" in told
    assert "Traceback" not in result.stderr


@pytest.fixture
def environ(machine: RemoteEngine) -> Iterator[dict[str, str]]:
    """The environment for a command there, with this machine's registries; no volume is left on it after the test."""
    yield {**machine.environ, "HOME": os.environ["HOME"], "DOCKER_HOST": "ssh://far"}
    assert machine.containers() == []
    if volumes := machine.volumes():
        machine.docker("volume", "rm", *volumes)
    assert machine.volumes() == []


def package_volumes(machine: RemoteEngine) -> set[str]:
    """The volumes of packages there, complete or not."""
    return set(machine.volumes("--filter", "label=perstack.ai/package"))


def records(project: Project) -> set[str]:
    """The package volumes of which a store has a record."""
    return {path.stem for path in project.store.glob("packages/*.json")}


async def begin_install(made: Project, machine: RemoteEngine, env: dict[str, str]) -> asyncio.subprocess.Process:
    """Start a job, and return its command once a Sandbox there installs packages."""
    process = await made.start("run", "--backend", "docker", "solo", "go", env=env)
    async with asyncio.timeout(SECONDS):
        while not any(re.search(r"-s\d+$", name) for name in machine.containers()):  # noqa: ASYNC110 - another machine
            await asyncio.sleep(0.05)
    return process


@pytest.mark.parametrize("workspace", [(), ("--workspace", "volume:far-work")], ids=["copy", "volume"])
async def test_skills_from_npm_and_pypi(
    project: Make, machine: RemoteEngine, environ: dict[str, str], workspace: tuple[str, ...]
) -> None:
    """Each package gets a volume, once; a Run sees those of its own job and writes none of them."""
    script = (
        "for d in /packages/*; do echo slug-${d##*/}; for f in $d/x $d/../x; do touch $f && echo $f; done; done; true"
    )
    both = {"stdout": True, "stderr": True}
    look = use(("exec", {"command": "sh", "args": ["-c", script], "cwd": "/workspace", "env": {}, **both}))
    made = project(EVERYTHING + TIME, {"solo": [look, *CALLS["solo"]]})
    first = await made.run("solo", "go", *workspace, env=environ)
    assert first.code == 0, first.stderr
    assert first.stderr.count("installing ") == 2
    seen, echo, time = results(first)
    assert (echo, json.loads(time)["timezone"]) == ("Echo: hello-42", "Asia/Tokyo")
    installed = records(made)
    assert (len(installed), package_volumes(machine)) == (2, installed)
    slugs = set(re.findall("slug-([a-z0-9]+)", seen))
    assert slugs == {name.split("-")[1] for name in installed}, seen
    assert seen.count("Read-only file system") == 2 * len(slugs)
    toml = made.directory / "perstack.toml"
    toml.write_text(f'[provider]\nproviderName = "scripted"\n{TIME_ONLY}')
    made.script({"solo": [look, *ASK_TIME["solo"]]})
    second = await made.run("solo", "go", *workspace, env=environ)
    assert second.code == 0, second.stderr
    assert "installing" not in second.stderr
    seen, time = results(second)
    assert json.loads(time)["timezone"] == "Asia/Tokyo"
    assert len(re.findall("slug-[a-z0-9]+", seen)) == 1
    assert records(made) == installed


async def test_the_news_example_with_its_package(
    tmp_path: Path, backend: str, machine: RemoteEngine, environ: dict[str, str]
) -> None:
    """As it is shipped: `install` gets the server from npm, the job starts it, and the report comes back."""
    shutil.copytree(EXAMPLES / "news", tmp_path / "news", ignore=shutil.ignore_patterns("workspace", "perstack"))
    news = Project(tmp_path / "news", backend)
    key = {"EXA_API_KEY": "canary-of-exa"}
    made = await news.command("install", "--backend", "docker", env={**environ, **key})
    assert made.code == 0, made.stderr
    assert "web_search_exa" in (news.directory / "perstack.lock").read_text()
    result = await news.run("news-researcher", "AI startup funding this week", env={**environ, **key})
    assert result.code == 0, result.stderr
    assert "installing" not in result.stderr
    assert [event.skill_name for event in result.of(SkillConnected)] == ["@perstack/base", "web-search"]
    assert (news.workspace / "reports/news.md").read_text().startswith("# AI startup funding")
    assert package_volumes(machine) == records(news)


async def test_an_orchestrator_that_is_killed_in_the_middle_of_an_install(
    project: Make, machine: RemoteEngine, environ: dict[str, str]
) -> None:
    """What it left is never used, and goes with the next `prune` after its Sandbox; a complete package stays."""
    made = project(TIME_ONLY, ASK_TIME)
    process = await begin_install(made, machine, environ)
    process.kill()
    await ended(process)
    torn = package_volumes(machine)
    assert (len(torn), records(made)) == (1, set())
    result = await made.run("solo", "go", env=environ)
    assert result.code == 0, result.stderr
    assert json.loads(results(result)[0])["timezone"] == "Asia/Tokyo"
    whole = records(made)
    assert (len(whole), whole & torn, package_volumes(machine)) == (1, set(), whole | torn)
    # As its store's next command does, once the deadline has passed.
    machine.docker("rm", "--force", "--volumes", *machine.containers())
    pruned = await made.command("prune", "--backend", "docker", env=environ)
    assert (pruned.code, pruned.stdout.decode().split()) == (0, list(torn))
    assert package_volumes(machine) == whole
    (record,) = made.store.glob("packages/*.json")
    record.unlink()
    pruned = await made.command("prune", "--backend", "docker", env=environ)
    assert (pruned.code, pruned.stdout.decode().split()) == (0, list(whole))
    assert machine.volumes() == []


async def test_an_ssh_that_is_killed_in_the_middle_of_an_install(
    project: Make, machine: RemoteEngine, environ: dict[str, str]
) -> None:
    """The install completes or fails with a sentence; either way the next job runs, and only complete packages stay."""
    made = project(TIME_ONLY, ASK_TIME)
    process = await begin_install(made, machine, environ)
    for each in ssh_processes(machine):
        os.kill(each, signal.SIGKILL)
    cut = await ended(process)
    assert cut.code in {0, 3}, cut.stderr
    assert "Traceback" not in cut.stderr
    assert package_volumes(machine) == records(made)
    again = await made.run("solo", "go", env=environ)
    assert again.code == 0, again.stderr
    assert package_volumes(machine) == records(made)
