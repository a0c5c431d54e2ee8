"""The package as its users have it: the wheel from an index, in another release of Debian, without root."""

import functools
import http.server
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.images.context import runtime_image
from orchestrator.version import VERSION
from orchestrator.wire.line import decode
from tests.support.installed import USER, Machine
from tests.support.traces import outside_directory

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "fitness"
UV = ROOT / ".venv" / "bin" / "uv"
VERSION_LINE = f"perstack-orch {VERSION}\n"

pytestmark = pytest.mark.installed


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server that has the wheel of this checkout, as an index of packages."""
    directory = tmp_path_factory.mktemp("wheels")
    build = [str(UV), "build", "--quiet", "--wheel", "--out-dir", str(directory), str(ROOT)]
    subprocess.run(build, timeout=300, check=True, env=os.environ | {"UV_SYSTEM_CERTS": "true"})
    handler = functools.partial(_Quiet, directory=str(directory))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Write nothing."""


@pytest.fixture(scope="module")
def machine(wheels: str) -> Iterator[Machine]:
    """The root file system after `pip install perstack-orch` in a virtual environment of alice."""
    with outside_directory() as above:
        above.chmod(0o755)
        home = above / "alice"
        home.mkdir()
        os.chown(home, USER, USER)
        found = Machine(home)
        made = found.run("python3", "-m", "venv", "venv")
        assert made.returncode == 0, made.stderr
        ran = found.run(
            "venv/bin/pip", "install", "--quiet", "--find-links", wheels, f"perstack-orch=={VERSION}", seconds=600
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr
        yield found


@pytest.fixture
def fitness(machine: Machine) -> Iterator[Path]:
    """A copy of the example in alice's home."""
    directory = machine.home / "fitness"
    directory.mkdir()
    for name in ("perstack.toml", "replies.json"):
        shutil.copy(EXAMPLE / name, directory)
    for path in (directory, *directory.iterdir()):
        os.chown(path, USER, USER)
    yield directory
    shutil.rmtree(directory)


def test_the_command_is_complete(machine: Machine) -> None:
    """Every command has its help, and no module of the package lacks a dependency."""
    assert machine.run("perstack-orch", "--version").stdout == VERSION_LINE
    ran = machine.run("perstack-orch", "--help")
    assert (ran.returncode, ran.stderr) == (0, "")
    script = (
        "import importlib, pkgutil, orchestrator\n"
        "for found in pkgutil.walk_packages(orchestrator.__path__, 'orchestrator.'):\n"
        "    if not found.name.startswith(('orchestrator.testing.', 'orchestrator.runtime.')):\n"
        "        importlib.import_module(found.name)\n"
        "import kubernetes\n"
    )
    ran = machine.run("venv/bin/python", "-c", script, seconds=120)
    assert (ran.returncode, ran.stderr) == (0, "")


def test_without_an_engine_one_sentence_says_what_to_install(machine: Machine, fitness: Path) -> None:
    """The sentence is for a user: it has a link, and no word about this project's Makefile."""
    ran = machine.run("sh", "-c", "cd fitness && perstack-orch run fitness-assistant go")
    assert (ran.returncode, ran.stdout) == (3, "")
    assert "https://docs.docker.com/engine/install/" in ran.stderr
    assert "make" not in ran.stderr
    assert fitness.exists()


def test_the_example_runs_as_processes(machine: Machine, fitness: Path) -> None:
    """Without an engine and without a key, with a warning that nothing is isolated."""
    command = "cd fitness && perstack-orch run --backend process fitness-assistant 'Start today'"
    ran = machine.run("sh", "-c", command)
    assert ran.returncode == 0, ran.stderr
    assert decode(ran.stdout.encode().splitlines()[-1]).type == "completeRun"
    assert "gives no isolation" in ran.stderr
    assert (fitness / "workspace" / "fitness-log.md").stat().st_uid == USER


def test_uvx_runs_it_without_an_installation(machine: Machine, wheels: str) -> None:
    """`uvx perstack-orch` is one command; `uv tool install` leaves the command on the PATH."""
    ran = machine.run("venv/bin/pip", "install", "--quiet", "uv", seconds=300)
    assert ran.returncode == 0, ran.stderr
    links = ("--find-links", wheels)
    ran = machine.run("venv/bin/uvx", *links, "perstack-orch", "--version", seconds=300)
    assert (ran.returncode, ran.stdout) == (0, VERSION_LINE), ran.stderr
    ran = machine.run("venv/bin/uv", "tool", "install", *links, "perstack-orch", seconds=300)
    assert ran.returncode == 0, ran.stderr
    assert machine.run(".local/bin/perstack-orch", "--version").stdout == VERSION_LINE


@pytest.mark.docker
def test_its_image_is_that_of_the_checkout(machine: Machine) -> None:
    """The installed files have the same digest, so `make image` has built the image that the command looks for."""
    ran = machine.run("perstack-orch", "image", "build", engine=True)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, f"{runtime_image()}\n", "")


@pytest.mark.docker
def test_the_example_runs_in_containers(machine: Machine, fitness: Path) -> None:
    """The engine's socket is mounted, but sees none of her files: the job works on a copy, and the log is hers."""
    command = "cd fitness && perstack-orch run fitness-assistant 'Start today'"
    ran = machine.run("sh", "-c", command, engine=True, seconds=120)
    assert ran.returncode == 0, ran.stderr
    assert "3 containers" in ran.stderr
    assert "works on a copy of /home/alice/fitness/workspace" in ran.stderr
    assert (fitness / "workspace" / "fitness-log.md").stat().st_uid == USER
