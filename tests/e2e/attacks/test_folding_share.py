"""A workspace on a share that takes other spellings for one name: to it, `.ENV` is `.env`."""

import asyncio
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import engine, folding_share
from tests.support.images import docker
from tests.support.project import ONE, PYTHON, Make, Project, refused, say, use

pytestmark = [
    pytest.mark.docker,
    pytest.mark.parametrize("backend", ["docker"]),
    pytest.mark.folding_share,
]

SECRET = "canary-of-the-env-file"
ATTACK = """
import os
for name in ('.ENV', '.Env', '.env'):
    try: print('read', open(name).read())
    except OSError as error: print(error)
for name in ('PERSTACK.toml', 'Perstack.TOML'):
    try: open(name, 'w').write('planted')
    except OSError as error: print(error)
open('made', 'w').write('made')
"""


@pytest.fixture
def share(tmp_path: Path) -> Iterator[Path]:
    """A share, with the project's workspace `ws` in it."""
    with folding_share.folding_share(tmp_path / "folding") as found:
        (found / "ws").mkdir()
        yield found


def guarded(files: Path) -> None:
    """Put the files in the workspace that no Expert may read or write."""
    (files / ".env").write_text(f"TOKEN={SECRET}")
    (files / "perstack.toml").write_text("mine")


def attacked(project: Make) -> Project:
    """A project whose Expert attacks."""
    call: tuple[str, dict[str, Any]] = (
        "exec",
        {"command": PYTHON["docker"], "args": ["-c", ATTACK], "env": {}, "cwd": ".", "stdout": True, "stderr": True},
    )
    return project(ONE, {"one": [use(call), say("done")]})


async def test_other_spellings_reach_no_guarded_file(project: Make, share: Path, tmp_path: Path) -> None:
    """The job works on a copy without them. Where the share is mounted with its guards, the same attack succeeds."""
    made, files, state = attacked(project), share / "ws", tmp_path / "state"
    guarded(files)
    state.mkdir()
    run = ("run", "--config", "perstack.toml", "--workspace", str(files))
    result = await made.command(*run, "one", "go", env={"XDG_STATE_HOME": str(state)})
    assert result.code == 0, result.stderr
    assert SECRET.encode() not in result.stdout
    assert (files / "perstack.toml").read_text() == "mine"
    assert (files / "made").read_text() == "made"
    assert "works on a copy" in result.stderr
    names = {path.name for path in files.iterdir()}
    assert names == {
        ".env",
        "perstack.toml",
        "made",
        "PERSTACK.toml.from-sandbox",
        "Perstack.TOML.from-sandbox-2",
    }
    (remembered,) = (state / "perstack-orch/shares").iterdir()
    assert remembered.read_text() == "folded\n"
    remembered.write_text("exact\n")
    again = await made.command(*run, "one", "go", env={"XDG_STATE_HOME": str(state)})
    assert "works on a copy" in again.stderr, "an answer that is wrong does not count where the files show it"
    assert SECRET in mounted_with_guards(files, tmp_path)
    # The kernel keeps what it read by one spelling for a moment after a change by another.
    deadline = time.monotonic() + 10
    while (files / "perstack.toml").read_text() != "planted":
        assert time.monotonic() < deadline
        await asyncio.sleep(0.2)


def mounted_with_guards(files: Path, tmp_path: Path) -> str:
    """Attack from a container that has the workspace mounted as on a share where spellings are distinct."""
    copy = tmp_path / "copy"
    copy.write_bytes((files / "perstack.toml").read_bytes())
    mounts = (f"{files}:/workspace", f"{os.devnull}:/workspace/.env:ro", f"{copy}:/workspace/perstack.toml:ro")
    options = [word for mount in mounts for word in ("--volume", mount)]
    command = ["run", "--rm", "--network", "none", "--user", "1000:1000", "--workdir", "/workspace", *options]
    return docker(*command, "--entrypoint", PYTHON["docker"], engine.runtime_image(), "-c", ATTACK)


async def test_without_a_copy_such_a_workspace_is_refused(project: Make, share: Path, tmp_path: Path) -> None:
    """Exit code 2 and a sentence; without guarded files there is nothing to protect, and it is mounted."""
    made, files, state = attacked(project), share / "ws", tmp_path / "state"
    state.mkdir()
    run = ("run", "--config", "perstack.toml", "--workspace", str(files), "--workspace-mode", "bind", "one", "go")
    assert (await made.command(*run, env={"XDG_STATE_HOME": str(state)})).code == 0
    assert (files / "PERSTACK.toml").read_text() == "planted"
    (files / "perstack.toml").unlink()
    (files / ".ENV").write_text("x")
    refused(await made.command(*run, env={"XDG_STATE_HOME": str(state)}), 2, ".ENV", "--workspace volume:NAME")
