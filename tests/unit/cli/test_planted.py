"""Whose a lock is, is known before it is opened."""

import os
from pathlib import Path

import pytest

from orchestrator.cli import request
from orchestrator.cli.options import RunOptions

TOML = '[experts.one]\ninstruction = "Work."\n'
SPOILT = "this is no lock"


def configured(cwd: Path, config: str, workspace: str) -> tuple[str, ...]:
    """The notes of a config that was named."""
    options = RunOptions(expert_key="one", query="go", config=config, workspace=workspace)
    return request.configure(options, cwd).notes


@pytest.mark.parametrize("how", ["plain", "a link out", "a link in"])
def test_a_lock_that_an_expert_may_have_put_there_is_not_opened(tmp_path: Path, how: str) -> None:
    """In the workspace, or behind a link from there or to there; a pipe would wait for ever."""
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
    note = f"{lock} is in the workspace and may be an Expert's, so it is ignored; keep it and perstack.toml outside"
    assert configured(tmp_path, str(config), "files") == (note,)


def test_one_of_the_user_s_is_read(tmp_path: Path) -> None:
    """The control, also through a link between directories that are no workspace; without any there is no note."""
    (tmp_path / "perstack.toml").write_text(TOML)
    assert configured(tmp_path, str(tmp_path / "perstack.toml"), "files") == ()
    (tmp_path / "real.lock").write_text(SPOILT)
    (tmp_path / "perstack.lock").symlink_to("real.lock")
    (note,) = configured(tmp_path, str(tmp_path / "perstack.toml"), "files")
    assert note.startswith(f"{tmp_path / 'perstack.lock'} is not a lock that can be read")
