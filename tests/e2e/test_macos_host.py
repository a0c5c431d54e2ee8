"""Whole jobs of a command that finds what macOS has, and nothing of Linux."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import mac
from tests.support.project import Project

EXAMPLE = Path(__file__).parents[2] / "examples" / "fitness"


@pytest.fixture
def home() -> Iterator[Path]:
    """A home directory with a short path, like those of macOS: a socket may be below it."""
    with tempfile.TemporaryDirectory(prefix="", dir="/tmp") as directory:
        yield Path(directory)


@pytest.mark.docker
async def test_a_whole_job_runs_on_a_macos_host(tmp_path: Path, home: Path) -> None:
    """The example runs, its state was in the home directory, nothing of it is left, and its records can be read."""
    directory = tmp_path / "fitness"
    directory.mkdir()
    for name in ("perstack.toml", "replies.json"):
        shutil.copy(EXAMPLE / name, directory)
    project, env = Project(directory, "docker"), mac.environment(home)
    result = await project.run("fitness-assistant", "Start today's session", env=env)
    assert result.code == 0, result.stderr
    assert result.types[-1] == "completeRun"
    states = home / ".local" / "state" / "perstack-orch" / "run"
    assert list(states.iterdir()) == []
    [job] = (project.store / "jobs").iterdir()
    for command in (("log",), ("record", job.name), ("prune",)):
        after = await project.command(*command, env=env)
        assert after.code == 0, after.stderr
