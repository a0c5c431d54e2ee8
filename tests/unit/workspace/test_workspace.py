"""Which directories may be given to an Expert."""

import os
import pwd
import socket
from pathlib import Path

import pytest

from orchestrator.backends.docker.endpoint import engine_sockets
from orchestrator.disk.mount_registry import record_mount
from orchestrator.errors import ConfigError
from orchestrator.sandbox.api import User
from orchestrator.workspace.mount import ensure
from orchestrator.workspace.workspace import NOBODY, Workspace, keep_store_apart, prepare
from tests.support.other_user import as_user

ROOT = os.geteuid() == 0
SELF = NOBODY if ROOT else User(os.geteuid(), os.getegid())


@pytest.fixture(autouse=True)
def _state(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A directory that an unprivileged user owns."""
    path = tmp_path / "ws"
    path.mkdir()
    os.chown(path, SELF.uid, SELF.gid)
    return path


def test_an_absent_default_is_made_for_an_unprivileged_user(tmp_path: Path) -> None:
    """A directory that we make belongs to the caller, or to an unprivileged user if the caller is root."""
    found = prepare(tmp_path / "a" / "workspace", None, make=True)
    assert found == Workspace(tmp_path / "a" / "workspace", SELF, absent=True)
    assert not (tmp_path / "a").exists()
    ensure(found)
    assert (tmp_path / "a" / "workspace").stat().st_uid == SELF.uid


def test_an_absent_named_one_is_refused(tmp_path: Path) -> None:
    """A mistyped path is not created."""
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
    """Through a symbolic link the mount would reach another file."""
    (workspace / name).symlink_to("/etc/hostname")
    with pytest.raises(ConfigError, match="is a symbolic link"):
        prepare(workspace, None)


def test_a_file_is_no_workspace(tmp_path: Path) -> None:
    """The message names the file."""
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="is not a directory"):
        prepare(tmp_path / "file", None)


@pytest.mark.skipif(not ROOT, reason="only root has directories of root")
def test_a_directory_of_root_needs_run_as(tmp_path: Path) -> None:
    """Experts never run as root; the user of --run-as must be able to write."""
    (tmp_path / "ws").mkdir(mode=0o755)
    with pytest.raises(ConfigError, match="belongs to root"):
        prepare(tmp_path / "ws", None)
    with pytest.raises(ConfigError, match="not writable for user 65532"):
        prepare(tmp_path / "ws", NOBODY)
    (tmp_path / "ws").chmod(0o777)
    assert prepare(tmp_path / "ws", NOBODY).user == NOBODY


def test_without_isolation_sandboxes_run_as_the_caller(tmp_path: Path) -> None:
    """Without isolation a process runs as the caller, even as root."""
    caller = User(os.geteuid(), os.getegid())
    found = prepare(tmp_path / "ws", None, make=True, isolated=False)
    assert found == Workspace(tmp_path / "ws", caller, absent=True)
    ensure(found)
    assert (tmp_path / "ws").stat().st_uid == caller.uid


def test_what_is_too_much(tmp_path: Path) -> None:
    """The whole machine, any user's home (also a system user's) or what contains one is refused, also behind a link."""
    refused = {
        "/": "contains all of this machine",
        str(Path.home()): "contains the home directory of user",
        str(Path.home().parent): "contains ",
        pwd.getpwnam("daemon").pw_dir: "contains the home directory of user",
    }
    for path, why in refused.items():
        (tmp_path / "link").unlink(missing_ok=True)
        (tmp_path / "link").symlink_to(path)
        for spelled in (Path(path), tmp_path / "link", tmp_path / "link" / "."):
            with pytest.raises(ConfigError, match=why):
                prepare(spelled, SELF)


def test_what_is_hidden_in_a_home_is_too_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hidden directories of a home have keys and settings, at any depth; checkouts of tools there are allowed."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "link").symlink_to(".config")
    for name in (".ssh", ".config", ".config/gh", ".cache", ".cache/uv/x", ".tool/worktrees", "link/gh"):
        path = tmp_path / name
        path.mkdir(parents=True, exist_ok=True)
        os.chown(path, SELF.uid, SELF.gid)
        with pytest.raises(ConfigError, match=r"contains files of .*/\.\w+, which has settings and keys of user "):
            prepare(path, None)
    for name in ("work", "work/.hidden", ".tool/worktrees/project", ".cache/tool/worktrees/a/b"):
        path = tmp_path / name
        path.mkdir(parents=True)
        os.chown(path, SELF.uid, SELF.gid)
        assert prepare(path, None).path == path
    monkeypatch.setenv("HOME", "/")
    assert prepare(tmp_path / "work", None).path == tmp_path / "work"


def test_a_user_without_a_home_needs_none(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user without a home, as in some containers, needs none."""
    monkeypatch.delenv("HOME")
    if not ROOT:
        assert prepare(workspace, None).path == workspace
        return
    assert as_user(4242, lambda: prepare(Path("/var/tmp"), User(4242, 4242), isolated=False).path) == Path("/var/tmp")


def test_a_link_that_an_expert_may_have_made_is_not_followed(workspace: Path, tmp_path: Path) -> None:
    """A link in a mounted directory is refused at any position of the path; the same target without it is allowed."""
    keys = tmp_path / "keys"
    (keys / "inner").mkdir(parents=True)
    for path in (keys, keys / "inner"):
        os.chown(path, SELF.uid, SELF.gid)
    (workspace / "out").symlink_to(keys)
    (workspace / "sub").mkdir()
    os.chown(workspace / "sub", SELF.uid, SELF.gid)
    (tmp_path / "mine").symlink_to(workspace / "out")
    assert prepare(workspace / "out", None).path == keys, "the control: only the mount makes the difference"
    record_mount(workspace)
    why = f"leads through the link {workspace / 'out'}, which lies in {workspace}, which was mounted as a workspace"
    for path in (
        workspace / "out",
        workspace / "out" / "inner",
        workspace / "out" / ".",
        workspace / "sub" / ".." / "out",
        tmp_path / "mine",
        tmp_path / "mine" / "inner",
    ):
        for make in (False, True):
            with pytest.raises(ConfigError, match=why):
                prepare(path, None, make=make)
        with pytest.raises(ConfigError, match=why):
            prepare(path, None, isolated=False)
    for path in (workspace, workspace / "sub", keys, keys / "inner"):
        assert prepare(path, None).path == path


def test_an_absent_one_behind_an_expert_s_link_is_not_made(workspace: Path, tmp_path: Path) -> None:
    """A default workspace may be a link to a missing directory if the command starts inside a workspace."""
    (workspace / "workspace").symlink_to(tmp_path / "not yet")
    record_mount(workspace)
    with pytest.raises(ConfigError, match="leads through the link"):
        prepare(workspace / "workspace", None, make=True)


@pytest.mark.skipif(not ROOT, reason="only root has links of other users")
def test_a_link_of_another_user_is_not_followed(
    workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The target's owner does not matter: root mounts any user's. Under sudo, the user's own links are followed."""
    link = tmp_path / "link"
    link.symlink_to(workspace)
    monkeypatch.delenv("SUDO_UID", raising=False)
    assert prepare(link, None) == Workspace(workspace, SELF)
    os.chown(link, 4242, 4242, follow_symlinks=False)
    with pytest.raises(ConfigError, match=f"leads through the link {link}, which belongs to user 4242, and not to you"):
        prepare(link, None)
    monkeypatch.setenv("SUDO_UID", "4242")
    assert prepare(link, None).path == workspace


def test_where_it_leads_is_what_is_meant(workspace: Path, tmp_path: Path) -> None:
    """The path has none of the user's own links left, so that it is looked up only once."""
    (tmp_path / "link").symlink_to(workspace.parent)
    assert prepare(tmp_path / "link" / "ws", None) == Workspace(workspace, SELF)
    absent = prepare(tmp_path / "link" / "absent", None, make=True)
    assert absent == Workspace(tmp_path / "absent", SELF, absent=True)


def test_an_engine_s_socket_is_too_much(workspace: Path, tmp_path: Path) -> None:
    """A socket is found at any depth and behind links."""
    (workspace / "deep").mkdir()
    with socket.socket(socket.AF_UNIX) as engine:
        engine.bind(str(workspace / "deep" / "e.sock"))
    (tmp_path / "link.sock").symlink_to(workspace / "deep" / "e.sock")
    (tmp_path / "docker.sock").touch()
    for named in (workspace / "deep" / "e.sock", tmp_path / "link.sock"):
        sockets = engine_sockets({"DOCKER_HOST": f"unix://{named}"})
        for path in (workspace, workspace / "deep", tmp_path):
            with pytest.raises(ConfigError, match=r"contains the engine's socket .*e\.sock, by which"):
                prepare(path, SELF, sockets=sockets)
    elsewhere = engine_sockets({"XDG_RUNTIME_DIR": str(tmp_path)})
    assert tmp_path / "docker.sock" in elsewhere
    assert prepare(workspace, None, sockets=elsewhere).path == workspace


def test_records_and_files_stay_apart(workspace: Path, tmp_path: Path) -> None:
    """Otherwise an Expert could write its own records, or records could appear among its files."""
    (tmp_path / "link").symlink_to(workspace)
    inside = [(workspace, workspace / "perstack"), (workspace, workspace), (workspace, tmp_path / "link" / "x")]
    for files, records in inside:
        with pytest.raises(ConfigError, match=r"the store .* is inside the workspace"):
            keep_store_apart(files, records)
    for files, records in ((workspace / "jobs", workspace), (tmp_path / "link" / "x", workspace)):
        with pytest.raises(ConfigError, match=r"the workspace .* is inside the store"):
            keep_store_apart(files, records)
    keep_store_apart(workspace, workspace.parent / "perstack")
