"""Skills whose packages come from registries: real ones from npm and PyPI, on every backend."""

import asyncio
import fcntl
import json
import os
import shutil
import tomllib
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

from orchestrator.wire.event import SkillConnected, SkillStarting
from orchestrator.wire.package import MARKER
from tests.support.odd_trees import cleared, dig, unremovable
from tests.support.packages import ASK_TIME, CALLS, EVERYTHING, TIME, TIME_ONLY, results
from tests.support.project import Make, Project, say, use

pytestmark = pytest.mark.on_engines


@pytest.fixture(scope="session")
def all_stores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stores whose packages all processes of a test run share, since fetching them takes seconds."""
    own = tmp_path_factory.getbasetemp()
    stores = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "stores"
    stores.mkdir(exist_ok=True)
    return stores


@pytest.fixture
def stores(all_stores: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """The same; no other process damages that of the test's backend meanwhile, and a `damaging` test has it alone."""
    node = request.node
    backend = next((name for name in ("docker", "kubernetes") if node.get_closest_marker(name)), "process")
    with (all_stores / f"{backend}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX if node.get_closest_marker("damaging") else fcntl.LOCK_SH)
        yield all_stores


@pytest.fixture
def storage(stores: Path, backend: str) -> Path:
    """The shared store of a backend."""
    return stores / backend


def installed(store: Path) -> dict[str, Path]:
    """The package directories of a store by the package's name; in place of a package in a volume, its record."""
    markers = {marker: marker.parent for marker in store.glob(f"packages/*/{MARKER}")}
    records = {record: record for record in store.glob("packages/*.json")}
    return {json.loads(path.read_bytes())["name"]: found for path, found in (markers | records).items()}


def directories(store: Path) -> list[str]:
    """Everything in the packages directory but its locks."""
    return sorted(path.name for path in (store / "packages").iterdir() if path.name != ".locks")


async def test_servers_from_npm_and_pypi_run_as_skills(project: Make, tmp_path: Path) -> None:
    """Both are installed before the first Sandbox, answer their tools, and are not installed again."""
    # The other tests share a store, and one of them may have come first in this process.
    storage = tmp_path / "own-store"
    solo = project(EVERYTHING + TIME, CALLS)
    first = await solo.run("solo", "go", "--storage", str(storage))
    assert first.code == 0, first.stderr
    assert "installing @modelcontextprotocol/server-everything" in first.stderr
    echo, time = results(first)
    assert echo == "Echo: hello-42"
    assert json.loads(time)["timezone"] == "Asia/Tokyo"
    assert set(installed(storage)) == {"@modelcontextprotocol/server-everything", "mcp-server-time"}
    again = await solo.run("solo", "go", "--storage", str(storage))
    assert again.code == 0, again.stderr
    assert "installing" not in again.stderr


@pytest.mark.docker
async def test_a_run_reaches_no_registry(tmp_path: Path, stores: Path) -> None:
    """What the install Sandbox could do, a Run's cannot: fetch a package, or change one."""
    command = "npm view @modelcontextprotocol/server-everything version --fetch-retries=0; echo npm $?"
    both = {"stdout": True, "stderr": True}
    writes = "touch /packages/x; echo write $?"
    ask = use(
        ("exec", {"command": "sh", "args": ["-c", f"{command}; {writes}"], "cwd": "/workspace", "env": {}, **both})
    )
    solo = Project.make(tmp_path / "project", "docker", EVERYTHING, {"solo": [ask, say("done")]})
    result = await solo.run("solo", "go", "--storage", str(stores / "docker"))
    assert result.code == 0, result.stderr
    assert "@modelcontextprotocol/server-everything" in installed(stores / "docker")
    said = results(result)[0]
    assert "npm error code E" in said
    assert "npm 0" not in said
    assert "write 1" in said


@pytest.mark.mounted
@pytest.mark.damaging
async def test_a_torn_install_never_counts(project: Make, storage: Path) -> None:
    """A directory without its marker and leftovers of a killed install are replaced."""
    solo = project(TIME_ONLY, ASK_TIME)
    assert (await solo.run("solo", "go", "--storage", str(storage))).code == 0
    torn = installed(storage)["mcp-server-time"]
    (torn / MARKER).unlink()
    shutil.rmtree(torn / "bin")
    leftover = torn.with_name(f".installing-{torn.name}")
    leftover.mkdir()
    (leftover / "half").write_text("x")
    result = await solo.run("solo", "go", "--storage", str(storage))
    assert result.code == 0, result.stderr
    assert json.loads(results(result)[0])["timezone"] == "Asia/Tokyo"
    assert not leftover.exists()


@pytest.mark.mounted
@pytest.mark.damaging
async def test_what_a_killed_install_left_stops_no_other(project: Make, storage: Path) -> None:
    """A tree of any depth is removed; one that cannot be is named, and the package is installed next to it."""
    solo = project(TIME_ONLY, ASK_TIME)
    assert (await solo.run("solo", "go", "--storage", str(storage))).code == 0
    package = installed(storage)["mcp-server-time"]
    leftover = package.with_name(f".installing-{package.name}")
    for stays in (False, True):
        (package / MARKER).unlink()
        leftover.mkdir()
        with cleared(leftover):
            dig(leftover)
            (leftover / "stays").touch()
            with unremovable(leftover / "stays") if stays else nullcontext():
                result = await solo.run("solo", "go", "--storage", str(storage))
            assert result.code == 0, result.stderr
            assert result.stderr.count(f"{leftover} is left over and cannot be removed: ") == stays
            assert json.loads(results(result)[0])["timezone"] == "Asia/Tokyo"
            assert [name for name in directories(storage) if name.startswith(".")] == [leftover.name] * stays


async def test_jobs_at_once_install_once(project: Make, tmp_path: Path) -> None:
    """Two jobs on one store that both need a package: one installs it, both run."""
    solo = project(TIME_ONLY, ASK_TIME)
    storage = str(tmp_path / "store")
    both = await asyncio.gather(*(solo.run("solo", "go", "--storage", storage) for _ in range(2)))
    assert [result.code for result in both] == [0, 0], [result.stderr for result in both]
    assert sum(result.stderr.count("installing mcp-server-time") for result in both) == 1


@pytest.mark.parametrize(
    ("command", "registry"), [("npx", "https://registry.npmjs.org"), ("uvx", "https://pypi.org/simple")]
)
async def test_an_unknown_package_is_one_sentence(project: Make, command: str, registry: str) -> None:
    """The job does not start: exit code 3, the package and its registry's answer, nothing half installed."""
    name = "perstack-orch-no-such-package"
    toml = '[experts."solo"]\ninstruction = "x"\n[experts."solo".skills."gone"]\ntype = "mcpStdioSkill"\n'
    solo = project(f'{toml}command = "{command}"\npackageName = "{name}"\n', {"solo": [say("never")]})
    result = await solo.run("solo", "go")
    assert (result.code, result.stdout) == (3, b"")
    complaint = result.stderr.strip().splitlines()[-1]
    assert complaint.startswith(f"perstack-orch: package '{name}' cannot be installed from {registry}")
    assert "not found" in complaint.lower()
    assert directories(solo.store) == []
    assert not (solo.store / "jobs").exists()


@pytest.mark.behaviour("B12")
async def test_install_writes_the_lock(project: Make, storage: Path) -> None:
    """It has version "1", its time and configuration, the Experts, and the tools that `pick` leaves."""
    solo = project(EVERYTHING + TIME, CALLS)
    result = await solo.command("install", "--backend", solo.backend, "--storage", str(storage))
    assert result.code == 0, result.stderr
    path = solo.directory / "perstack.lock"
    lock = tomllib.loads(path.read_text())
    said = result.stdout.decode().splitlines()
    assert said[:3] == ["Resolving experts...", "Found 1 expert(s)", "Collecting tool definitions for solo..."]
    assert said[-1] == f"Generated {path}"
    assert (lock["version"], lock["configPath"], list(lock["experts"])) == ("1", "perstack.toml", ["solo"])
    tools = lock["experts"]["solo"]["toolDefinitions"]
    named = [(tool["skillName"], tool["name"]) for tool in tools if tool["skillName"] != "@perstack/base"]
    assert named == [("everything", "echo"), ("time", "get_current_time"), ("time", "convert_time")]
    echo = next(tool for tool in tools if tool["name"] == "echo")
    assert echo["inputSchema"]["required"] == ["message"]


@pytest.mark.behaviour("E12")
async def test_a_locked_skill_starts_during_the_first_model_call(project: Make, storage: Path) -> None:
    """The model gets the locked tools at once; a server starts meanwhile, a lazy one when it is called."""
    echo = use(("echo", {"message": "hello-42"})) | {"delayMs": 6_000}
    solo = project(EVERYTHING + TIME + "lazyInit = true\n", {"solo": [echo, say("done")]})
    made = await solo.command("install", "--backend", solo.backend, "--storage", str(storage))
    assert made.code == 0, made.stderr
    result = await solo.run("solo", "go", "--storage", str(storage))
    assert result.code == 0, result.stderr
    assert results(result) == ["Echo: hello-42"]
    assert [event.skill_name for event in result.of(SkillStarting)] == ["everything"]
    told = result.types
    assert told.index("startGeneration") < told.index("skillStarting") < told.index("callTools")


@pytest.mark.behaviour("E12")
@pytest.mark.parametrize("damage", ["not toml [", "changed"])
async def test_a_lock_that_does_not_fit_is_ignored(tmp_path: Path, stores: Path, damage: str) -> None:
    """There is a note about the lock, and skills start as without one."""
    solo, storage = Project.make(tmp_path / "project", "process", TIME_ONLY, ASK_TIME), stores / "process"
    lock = solo.directory / "perstack.lock"
    if damage == "changed":
        made = await solo.command("install", "--backend", solo.backend, "--storage", str(storage))
        assert made.code == 0, made.stderr
        toml = solo.directory / "perstack.toml"
        toml.write_text(toml.read_text().replace("Tell the time.", "Tell the time twice."))
    else:
        lock.write_text(damage)
    result = await solo.run("solo", "go", "--storage", str(storage))
    assert result.code == 0, result.stderr
    assert str(lock) in result.stderr
    order = [event.type for event in result.events]
    assert order.index("skillStarting") < order.index("callTools")
    assert [event.skill_name for event in result.of(SkillConnected)] == ["@perstack/base", "time"]
