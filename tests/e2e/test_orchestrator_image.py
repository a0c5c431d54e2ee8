"""The image that an Expert is shipped as: one container, one Expert, one user's workspace."""

import os
import subprocess
from pathlib import Path

import pytest

from orchestrator.wire.line import decode

ROOT = Path(__file__).parents[2]
IMAGE = "perstack-orch-test-fitness"
KEY = "canary-key-93bd"

pytestmark = [
    pytest.mark.docker,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a workspace to another user"),
]


def _docker(*arguments: str, seconds: int = 120) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["docker", *arguments],  # noqa: S607 - the user's docker
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
        env=os.environ | {"ANTHROPIC_API_KEY": KEY},
    )


@pytest.fixture(scope="module")
def image() -> str:
    """The example's image, built on the orchestrator's as its Dockerfile says."""
    subprocess.run([ROOT / "dev" / "orchestrator-image"], timeout=600, check=True)
    built = _docker("build", "--tag", IMAGE, str(ROOT / "examples" / "fitness"))
    assert built.returncode == 0, built.stderr
    return IMAGE


def _workspace(path: Path, owner: int) -> Path:
    path.mkdir()
    os.chown(path, owner, owner)
    return path


def _run(image: str, workspace: Path, *options: str) -> subprocess.CompletedProcess[str]:
    mount = f"{workspace}:/workspace"
    return _docker(
        "run", "--rm", "-e", "ANTHROPIC_API_KEY", "-v", mount, "--network", "none", *options, image, "Start now"
    )


def test_each_user_has_a_workspace_of_their_own(image: str, tmp_path: Path) -> None:
    """Two users, two volumes: each gets files and records of their own, as their own user, and stdout has events."""
    for name, uid in (("alice", 4001), ("bob", 4002)):
        workspace = _workspace(tmp_path / name, uid)
        ran = _run(image, workspace, "--user", f"{uid}:{uid}")
        assert ran.returncode == 0, ran.stderr
        events = [decode(line) for line in ran.stdout.encode().splitlines()]
        assert events[-1].type == "completeRun"
        assert "the container around this is the sandbox" in ran.stderr
        assert "gives no isolation" not in ran.stderr
        assert (workspace / "fitness-log.md").stat().st_uid == uid
        assert len(list((workspace / "perstack" / "jobs").iterdir())) == 1
        everything = [path for path in workspace.rglob("*") if path.is_file()]
        assert {path.stat().st_uid for path in everything} == {uid}
        assert not any(KEY.encode() in path.read_bytes() for path in everything)
        assert KEY not in ran.stdout + ran.stderr


def test_another_container_goes_on_with_the_job_of_the_volume(image: str, tmp_path: Path) -> None:
    """--continue works across containers: the records are in the workspace's volume."""
    workspace = _workspace(tmp_path / "carol", 4003)
    mount = ("--user", "4003:4003", "-v", f"{workspace}:/workspace", "--network", "none")
    first = _docker("run", "--rm", *mount, image, "Start now")
    assert first.returncode == 0, first.stderr
    second = _docker("run", "--rm", *mount, image, "--continue", "That was a 7 of 10")
    assert second.returncode == 0, second.stderr
    job = {decode(line).job_id for line in (first.stdout + second.stdout).encode().splitlines()}
    assert len(job) == 1
    assert "Well done" in second.stdout
    assert len(list((workspace / "perstack" / "jobs").iterdir())) == 1


def test_it_runs_as_nobody_unless_told(image: str, tmp_path: Path) -> None:
    """Without --user it is the image's own unprivileged user."""
    workspace = _workspace(tmp_path / "workspace", 65532)
    ran = _run(image, workspace)
    assert ran.returncode == 0, ran.stderr
    assert (workspace / "fitness-log.md").stat().st_uid == 65532


def test_a_workspace_that_it_cannot_write(image: str, tmp_path: Path) -> None:
    """One sentence with the remedy, exit 2, nothing on stdout."""
    ran = _run(image, _workspace(tmp_path / "workspace", 4003))
    assert (ran.returncode, ran.stdout, len(ran.stderr.splitlines())) == (2, "", 1)
    assert "/workspace is not writable for user 65532" in ran.stderr
    assert "--user" in ran.stderr


def test_it_never_runs_as_root(image: str, tmp_path: Path) -> None:
    """Root in the container is refused too."""
    ran = _run(image, _workspace(tmp_path / "workspace", 65532), "--user", "0")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "never run as root" in ran.stderr
