"""Jobs whose caller is also the user inside, as on most machines: only modes and mounts keep them apart."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.wire.event import ResolveToolResults
from tests.support import engine
from tests.support.attacks import nothing_left
from tests.support.project import COMMAND, ONE, Project, say, use
from tests.support.traces import outside_directory

pytestmark = pytest.mark.docker
SOCKET = Path("/var/run/docker.sock")
OF_THIS_MACHINE = Path("/etc/group")
"""A file that the image has too: tools may read whatever is mounted in its place."""
SECRET = OF_THIS_MACHINE.read_bytes().splitlines()[0].split(b":")[0] + b":"


@pytest.fixture
def prefix() -> tuple[str, ...]:
    """The words before a command that run it as a user who may use the engine and is not root."""
    if os.geteuid():
        return ()
    words = ("setpriv", "--reuid=65532", "--regid=65532", f"--groups={SOCKET.stat().st_gid}")
    done = subprocess.run([*words, *COMMAND, "--version"], capture_output=True, timeout=60, check=False)
    if done.returncode:
        pytest.skip("only root can read this checkout, so no other user can try it")
    return words


@pytest.fixture
def root() -> Iterator[Path]:
    """A directory that is theirs."""
    with outside_directory() as directory:
        directory.chmod(0o755)
        yield directory


def owned(made: Project) -> Project:
    """Give the project, with its workspace, to that user."""
    made.workspace.mkdir()
    if os.geteuid() == 0:
        for path in (made.directory, made.workspace, *made.directory.iterdir()):
            os.chown(path, 65532, 65532)
    return made


async def test_an_expert_that_takes_modes_away_is_cleared_up_after(prefix: tuple[str, ...], root: Path) -> None:
    """Landlock does not keep a command from its own state directory's mode; the Run ends well, and nothing is left."""
    take = "chmod 0 /run/perstack/events.jsonl /run/perstack; stat -c mode=%a /run/perstack"
    call = ("exec", {"command": "sh", "args": ["-c", take], "env": {}, "cwd": ".", "stdout": True, "stderr": True})
    made = owned(Project.make(root / "project", "docker", ONE, {"one": [use(call), say("done")]}))
    made = replace(made, prefix=prefix)
    result = await made.run("one", "go", env={"HOME": str(root)})
    assert result.code == 0, result.stderr
    assert result.types[-1] == "completeRun"
    assert [event.seq for event in result.events] == list(range(1, len(result.events) + 1))
    assert b"mode=0" in result.stdout, "the control failed: the mode was not taken away"
    assert engine.containers(made.instance) == []
    nothing_left(root)


async def test_a_link_that_another_job_puts_in_a_file_s_place_is_not_mounted(
    prefix: tuple[str, ...], root: Path
) -> None:
    """Of two jobs in one workspace the first began before perstack.toml was there, and so may replace it.

    The second shows its later Sandboxes what was there when it began, and no file of this machine.
    """
    put = f"ln -sf {OF_THIS_MACHINE} perstack.toml; touch swapped; sleep 60"
    replace_it = f"echo ready; while ! [ -e go ]; do sleep 0.05; done; {put}"
    wait = "touch go; while ! [ -e swapped ]; do sleep 0.05; done"
    sh = {"command": "sh", "env": {}, "cwd": ".", "stdout": True, "stderr": True}
    toml = '[experts.one]\ninstruction = "Do."\ndelegates = ["two"]\n[experts.two]\ninstruction = "Do."\n'
    replies = {
        "one": [use(("exec", sh | {"args": ["-c", wait]})), use(("two", {"query": "read"})), say("done")],
        "two": [use(("exec", sh | {"args": ["-c", "cat perstack.toml"]})), say("read")],
    }
    made = replace(owned(Project.make(root / "project", "docker", toml, replies)), prefix=prefix)
    home = {"HOME": str(root)}
    first = await made.start("shell", "one", "--", "sh", "-c", replace_it, env=home)
    try:
        assert first.stdout is not None
        assert await first.stdout.readline() == b"ready\n"
        shutil.copy(made.directory / "perstack.toml", made.workspace)
        if os.geteuid() == 0:
            os.chown(made.workspace / "perstack.toml", 65532, 65532)
        result = await made.run("one", "go", "--prewarm", "off", env=home)
    finally:
        first.terminate()
        await first.communicate()
    assert (made.workspace / "perstack.toml").is_symlink(), "the control failed: it was not replaced"
    assert result.code == 0, result.stderr
    [read] = [event for event in result.of(ResolveToolResults) if event.expert_key == "two"]
    assert b"delegates = " in read.to_json()
    assert SECRET not in read.to_json()
    nothing_left(root)
