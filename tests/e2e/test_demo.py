"""`demo`: the first command of a user who has no key and no project."""

import json
from pathlib import Path

import pytest

from orchestrator.config import load
from tests.support.project import Project, refused

PLACES = ["process", pytest.param("docker", marks=pytest.mark.docker)]


@pytest.fixture
def empty(tmp_path: Path) -> Project:
    """A directory without anything in it."""
    made = Project(tmp_path / "empty", "process")
    made.directory.mkdir()
    return made


@pytest.mark.parametrize("backend", PLACES)
async def test_a_user_without_a_key_sees_two_experts_work(empty: Project, backend: str) -> None:
    """The project is copied from the package and runs; what the guide found in its Sandbox is true there."""
    result = await empty.command("demo", "--backend", backend)
    assert result.code == 0, result.stderr
    shown = result.stdout.decode()
    assert "reviewer: ./tour.md is complete: user, network devices and keys are in it." in shown
    assert "guide: That was the tour: two Experts" in shown
    assert "try next, in perstack-demo:" in shown
    project = empty.directory / "perstack-demo"
    tour = (project / "workspace" / "tour.md").read_text().splitlines()
    assert tour[0] == "# A tour of this Sandbox"
    if backend == "docker":
        assert "- variables with a key: 0" in tour
        assert "- network devices: lo " in tour
        assert not tour[2].endswith("(0)")
    assert sorted(path.name for path in project.iterdir()) == ["perstack", "perstack.toml", "replies.json", "workspace"]


async def test_a_project_that_is_there_is_kept(empty: Project) -> None:
    """A file that the user changed stays, and a second run works on it."""
    assert (await empty.command("demo", "--backend", "process", "tour")).code == 0
    replies = empty.directory / "tour" / "replies.json"
    script = json.loads(replies.read_text())
    script["guide"] = [{"text": "I was changed."}]
    replies.write_text(json.dumps(script))
    result = await empty.command("demo", "--backend", "process", "tour")
    assert result.code == 0, result.stderr
    assert "guide: I was changed." in result.stdout.decode()


async def test_a_directory_that_cannot_be_made(empty: Project) -> None:
    """One sentence, and exit code 2."""
    (empty.directory / "file").write_text("")
    refused(await empty.command("demo", "file"), 2, "the demo cannot be written to", "name another DIRECTORY")
    refused(await empty.command("demo", "--backend", "kubernetes"), 2, "the demo runs on this machine")
    assert [path.name for path in empty.directory.iterdir()] == ["file"]


def test_the_packaged_project_is_valid(tmp_path: Path) -> None:
    """It loads under --strict without a note."""
    packaged = Path(__file__).parents[2] / "orchestrator" / "demo" / "perstack.toml"
    (tmp_path / "perstack.toml").write_bytes(packaged.read_bytes())
    config = load(tmp_path / "perstack.toml", strict=True)
    assert (config.provider_name, config.notes, sorted(config.experts)) == ("scripted", (), ["guide", "reviewer"])
