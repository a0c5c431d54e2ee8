"""No file that an Expert or another user may put where commands look makes one hang, or read without an end."""

import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.odd_files import ODD
from tests.support.project import COMMAND, ONE, Project, say

SECONDS = 30
MEGABYTES = 200
"""What a command takes in addition to what it reads is less than half of it."""

KINDS = sorted(ODD)


@dataclass(frozen=True)
class Done:
    """How a command ended, within its bounds."""

    code: int
    stdout: str
    stderr: str


def run(made: Project, *words: str) -> Done:
    """Run a command, and check that it took little time and memory, and wrote no traceback."""
    began = time.monotonic()
    out, err = made.directory.parent / "stdout", made.directory.parent / "stderr"
    with out.open("wb") as stdout, err.open("wb") as stderr:
        process = subprocess.Popen(
            (*COMMAND, *words), cwd=made.directory, env=made.environment, stdout=stdout, stderr=stderr
        )
        try:
            while process.poll() is None:
                assert time.monotonic() - began < SECONDS, "the command hung"
                assert _megabytes(process.pid) < MEGABYTES
                time.sleep(0.005)
        finally:
            process.kill()
            process.wait()
    assert "Traceback" not in err.read_text()
    return Done(process.returncode, out.read_text(), err.read_text())


def _megabytes(process: int) -> float:
    """The most memory that a process has held; the figure of `wait4` would include the memory of the tests."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:")), 0)


@pytest.fixture
def made(tmp_path: Path) -> Project:
    """A project on this machine; its workspace exists."""
    made = Project.make(tmp_path / "project", "process", ONE, {"one": [say("done")]})
    made.workspace.mkdir()
    return made


def in_containers(made: Project) -> Project:
    """The same with Sandboxes as containers; the workspace belongs to their user."""
    if os.geteuid() == 0:
        os.chown(made.workspace, 65532, 65532)
    return Project(made.directory, "docker")


@pytest.mark.parametrize("kind", KINDS)
def test_a_config_that_is_named(made: Project, kind: str) -> None:
    """Exit code 2, and one sentence: which file, what is wrong, what to do."""
    odd = made.directory / "odd.toml"
    ODD[kind](odd)
    done = run(made, "run", "--backend", "process", "--config", "odd.toml", "one", "go")
    why = {"sparse": "has more than 1048576 bytes, so it is not read", "directory": "cannot be read: Is a directory"}
    assert (done.code, done.stdout) == (2, "")
    expected = f"perstack-orch: config {odd} {why.get(kind, 'is not a regular file, so it is not read')}; "
    assert done.stderr.startswith(expected), done.stderr
    assert done.stderr.endswith(", or name another with --config\n")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_config_that_is_found(made: Project, kind: str) -> None:
    """One that is not a file is ignored; one without an end is reported as such."""
    found = made.directory / "perstack.toml"
    found.unlink()
    ODD[kind](found)
    done = run(made, "run", "--backend", "process", "one", "go")
    assert (done.code, done.stdout) == (2, "")
    assert ("has more than 1048576 bytes" if kind == "sparse" else "no perstack.toml in") in done.stderr


def test_a_config_may_be_a_link(made: Project) -> None:
    """Where it is the user's own, named or found: the control."""
    (made.directory / "perstack.toml").rename(made.directory / "real.toml")
    (made.directory / "perstack.toml").symlink_to("real.toml")
    for words in ((), ("--config", "perstack.toml")):
        done = run(made, "run", "--backend", "process", *words, "one", "go")
        assert (done.code, "completeRun" in done.stdout) == (0, True), done.stderr


@pytest.mark.parametrize("kind", KINDS)
def test_a_lock_of_the_user_s(made: Project, kind: str) -> None:
    """It is passed over with a note, and the job is worked."""
    lock = made.directory / "perstack.lock"
    ODD[kind](lock)
    done = run(made, "run", "--backend", "process", "one", "go")
    assert (done.code, "completeRun" in done.stdout) == (0, True), done.stderr
    why = (
        "is writable by all users, so it is ignored"
        if kind == "device"
        else "is not a valid lock file, so it is ignored"
    )
    assert f"{lock} {why}" in done.stderr


@pytest.mark.docker
@pytest.mark.parametrize("kind", KINDS)
def test_a_lock_in_the_workspace(made: Project, kind: str) -> None:
    """It is not opened, where its config is named; one that cannot be protected as it is must go."""
    (made.directory / "perstack.toml").rename(made.workspace / "perstack.toml")
    (made.directory / "replies.json").rename(made.workspace / "replies.json")
    made, lock = in_containers(made), made.workspace / "perstack.lock"
    ODD[kind](lock)
    done = run(made, "run", "--backend", "docker", "--config", "workspace/perstack.toml", "one", "go")
    why = {
        "sparse": f"{lock} has more than 16777216 bytes, so it cannot be protected from Experts; replace it, or",
        "device": f"{lock} is a symbolic link, which cannot be protected from Experts",
    }
    if kind in why:
        assert (done.code, why[kind] in done.stderr, "completeRun" in done.stdout) == (2, True, False), done.stderr
    else:
        assert (done.code, "completeRun" in done.stdout) == (0, True), done.stderr
        assert f"{lock} is in the workspace and may come from an Expert, so it is ignored" in done.stderr


@pytest.mark.docker
@pytest.mark.parametrize("kind", KINDS)
def test_a_config_that_an_expert_left(made: Project, kind: str) -> None:
    """The next job does not copy it, whatever its size, and the error names the remedy."""
    made, left = in_containers(made), made.workspace / "perstack.toml"
    ODD[kind](left)
    done = run(made, "run", "--backend", "docker", "one", "go")
    why = {
        "sparse": f"{left} has more than 1048576 bytes, so it cannot be protected from Experts; replace it, or",
        "device": f"{left} is a symbolic link, which cannot be protected from Experts",
    }
    if kind in why:
        assert (done.code, why[kind] in done.stderr, "completeRun" in done.stdout) == (2, True, False), done.stderr
    else:
        assert (done.code, "completeRun" in done.stdout) == (0, True), done.stderr


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("named", [False, True])
def test_an_env_file(made: Project, kind: str, *, named: bool) -> None:
    """One that was named must be usable; else it is passed over with a note."""
    ODD[kind](made.directory / ".env")
    words = ("--env-path", ".env") if named else ()
    done = run(made, "run", "--backend", "process", *words, "one", "go")
    reasons = {"sparse": "has more than 1048576 bytes", "device": "is a symbolic link"}
    why = reasons.get(kind, "is not a regular file")
    if named:
        assert (done.code, done.stdout) == (2, "")
        assert f"perstack-orch: --env-path .env cannot be used: {why}; name a file of your own" in done.stderr
    else:
        assert (done.code, "completeRun" in done.stdout) == (0, True), done.stderr
        told = ".env is writable by all users, so it is ignored" if kind == "device" else f".env: {why}; ignored"
        assert told in done.stderr


@pytest.mark.parametrize("kind", KINDS)
def test_other_files_next_to_it(made: Project, kind: str) -> None:
    """The script of the scripted provider, and the file of prices."""
    (made.directory / "replies.json").unlink()
    ODD[kind](made.directory / "replies.json")
    done = run(made, "run", "--backend", "process", "one", "go")
    assert (done.code, "completeRun" in done.stdout, "the script" in done.stderr) == (2, False, True), done.stderr
    ODD[kind](made.directory / "prices.toml")
    done = run(made, "run", "--backend", "process", "--prices", "prices.toml", "one", "go")
    assert (done.code, done.stdout, "the prices in" in done.stderr) == (2, "", True), done.stderr
