"""The revision of a project's files."""

import subprocess
from pathlib import Path

import pytest

from orchestrator.cli.git_revision import revision_of


def git(directory: Path, *arguments: str) -> str:
    """Run git in a directory."""
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.com")
    command = ["git", *identity, *arguments]
    return subprocess.run(command, cwd=directory, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A committed project, with a file that is not committed."""
    (tmp_path / "perstack.toml").write_text("a")
    (tmp_path / "other").write_text("a")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", "perstack.toml")
    git(tmp_path, "commit", "--quiet", "--message", "one")
    return tmp_path


def test_committed_files_have_a_revision(project: Path) -> None:
    """What else lies there does not count."""
    assert revision_of(project, ("perstack.toml",)) == git(project, "rev-parse", "HEAD")


def test_changed_and_unknown_files_have_none(project: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The revision would not lead to what is in the image."""
    assert revision_of(project, ("perstack.toml", "other")) is None
    (project / "perstack.toml").write_text("b")
    assert revision_of(project, ("perstack.toml",)) is None
    assert revision_of(tmp_path_factory.mktemp("elsewhere"), ("perstack.toml",)) is None


def test_a_revision_is_not_needed(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without git none is known."""
    monkeypatch.setenv("PATH", "/nowhere")
    assert revision_of(project, ("perstack.toml",)) is None


def test_an_ignored_file_is_not_committed(project: Path) -> None:
    """It is not in the commit."""
    (project / ".gitignore").write_text("other\n")
    assert revision_of(project, ("other",)) is None


def test_no_program_of_the_repository_runs(project: Path) -> None:
    """A repository's setting could name one."""
    hook = project / "hook"
    hook.write_text(f"#!/bin/sh\ntouch {project}/ran\n")
    hook.chmod(0o755)
    git(project, "config", "core.fsmonitor", str(hook))
    git(project, "status")
    assert (project / "ran").exists(), "the control: git itself runs it"
    (project / "ran").unlink()
    assert revision_of(project, ("perstack.toml",)) is not None
    assert not (project / "ran").exists()
