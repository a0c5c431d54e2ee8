"""Which directories may be handed to an Expert."""

import os
from pathlib import Path

import pytest

from orchestrator.errors import ConfigError
from orchestrator.sandbox import User
from orchestrator.workspace import NOBODY, Workspace, ensure, prepare, refuse_store_inside

ROOT = os.geteuid() == 0
SELF = NOBODY if ROOT else User(os.geteuid(), os.getegid())


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A directory that an unprivileged user owns."""
    path = tmp_path / "ws"
    path.mkdir()
    os.chown(path, SELF.uid, SELF.gid)
    return path


def test_an_absent_default_is_made_for_an_unprivileged_user(tmp_path: Path) -> None:
    """What we make belongs to the caller, or to nobody if that is root."""
    found = prepare(tmp_path / "a" / "workspace", None, make=True)
    assert found == Workspace(tmp_path / "a" / "workspace", SELF, absent=True)
    assert not (tmp_path / "a").exists()
    ensure(found)
    assert (tmp_path / "a" / "workspace").stat().st_uid == SELF.uid


def test_an_absent_named_one_is_refused(tmp_path: Path) -> None:
    """A mistyped path is not made."""
    with pytest.raises(ConfigError, match="cannot be used: No such file"):
        prepare(tmp_path / "absent", None)


def test_files_that_grant_or_hold_secrets_are_found(workspace: Path) -> None:
    """Configuration is read-only inside, environment files are not visible."""
    for name in ("perstack.toml", "perstack.lock", ".env", ".env.local", "notes.md"):
        (workspace / name).touch()
    assert prepare(workspace, None) == Workspace(
        workspace,
        SELF,
        read_only=(Path("perstack.toml"), Path("perstack.lock")),
        hidden=(Path(".env"), Path(".env.local")),
    )


@pytest.mark.parametrize("name", ["perstack.toml", ".env"])
def test_a_link_in_their_place_is_refused(workspace: Path, name: str) -> None:
    """A symbolic link would make the mount reach another file."""
    (workspace / name).symlink_to("/etc/hostname")
    with pytest.raises(ConfigError, match="is a symbolic link"):
        prepare(workspace, None)


def test_a_file_is_no_workspace(tmp_path: Path) -> None:
    """A file is refused by name."""
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="is not a directory"):
        prepare(tmp_path / "file", None)


@pytest.mark.skipif(not ROOT, reason="only root has directories of root")
def test_a_directory_of_root_needs_run_as(tmp_path: Path) -> None:
    """Experts never run as root; --run-as must then be able to write."""
    (tmp_path / "ws").mkdir(mode=0o755)
    with pytest.raises(ConfigError, match="belongs to root"):
        prepare(tmp_path / "ws", None)
    with pytest.raises(ConfigError, match="not writable for user 65532"):
        prepare(tmp_path / "ws", NOBODY)
    (tmp_path / "ws").chmod(0o777)
    assert prepare(tmp_path / "ws", NOBODY).user == NOBODY


def test_without_isolation_sandboxes_run_as_the_caller(tmp_path: Path) -> None:
    """A plain process is the caller's own, root's too."""
    caller = User(os.geteuid(), os.getegid())
    found = prepare(tmp_path / "ws", None, make=True, isolated=False)
    assert found == Workspace(tmp_path / "ws", caller, absent=True)
    ensure(found)
    assert (tmp_path / "ws").stat().st_uid == caller.uid


def test_the_whole_machine_is_too_much() -> None:
    """The root directory and a home are refused."""
    for path in (Path("/"), Path.home()):
        with pytest.raises(ConfigError, match="too much to hand to an Expert"):
            prepare(path, SELF)


def test_records_stay_out_of_the_workspace(workspace: Path) -> None:
    """A store in the workspace would let an Expert write its own record."""
    with pytest.raises(ConfigError, match="is inside the workspace"):
        refuse_store_inside(workspace, workspace / "perstack")
    refuse_store_inside(workspace, workspace.parent / "perstack")
