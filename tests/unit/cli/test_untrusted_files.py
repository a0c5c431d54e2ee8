"""A lock in a workspace is recognized before it is opened."""

import os
from pathlib import Path

import pytest

from orchestrator.cli.build_job import load_config
from orchestrator.cli.options import RunOptions

TOML = '[experts.one]\ninstruction = "Work."\n'
SPOILT = "this is no lock"


def configured(cwd: Path, config: str, workspace: str) -> tuple[str, ...]:
    """Return the notes of a config that the user named."""
    options = RunOptions(expert_key="one", query="go", config=config, workspace=workspace)
    return load_config(options, cwd).notes


@pytest.mark.parametrize("how", ["plain", "a link out", "a link in"])
def test_a_lock_that_an_expert_may_have_put_there_is_not_opened(tmp_path: Path, how: str) -> None:
    """A lock in the workspace, or linked from or to it, is ignored; opening this one, a pipe, would block forever."""
    inside, outside = tmp_path / "files", tmp_path / "mine"
    inside.mkdir()
    outside.mkdir()
    config = (outside if how == "a link in" else inside) / "perstack.toml"
    config.write_text(TOML)
    lock, real = config.with_name("perstack.lock"), (outside if how == "a link out" else inside) / "real.lock"
    if how == "plain":
        real = lock
    os.mkfifo(real)
    if real != lock:
        lock.symlink_to(real)
    note = (
        f"{lock} is in the workspace and may come from an Expert, so it is ignored; keep it and perstack.toml outside"
    )
    assert configured(tmp_path, str(config), "files") == (note,)


def test_a_lock_outside_of_the_workspace_is_read(tmp_path: Path) -> None:
    """A lock outside is opened, also through a link; without a lock there is no note."""
    (tmp_path / "perstack.toml").write_text(TOML)
    assert configured(tmp_path, str(tmp_path / "perstack.toml"), "files") == ()
    (tmp_path / "real.lock").write_text(SPOILT)
    (tmp_path / "perstack.lock").symlink_to("real.lock")
    (note,) = configured(tmp_path, str(tmp_path / "perstack.toml"), "files")
    assert note.startswith(f"{tmp_path / 'perstack.lock'} is not a valid lock file")
