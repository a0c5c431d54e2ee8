"""Directories created for another user, where others may rename and link."""

import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from orchestrator.disk.directory import inode_at, inode_of, make_at, make_below
from orchestrator.errors import ConfigError
from orchestrator.workspace.mount import ensure, require_same
from orchestrator.workspace.workspace import NOBODY, Workspace, prepare

only_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives a directory to another user")
MALLORY = 65_531
ROUNDS = 400
OWNER = (NOBODY.uid, NOBODY.gid)

_FLIPPER = """
import os, sys
os.setgroups([]); os.setresgid(65531, 65531, 65531); os.setresuid(65531, 65531, 65531)
os.chdir(sys.argv[1])
print("flipping", flush=True)
while True:
    for act in (
        lambda: os.symlink("../target", "workspace"), lambda: os.unlink("workspace"),
        lambda: os.rename("workspace", "made"), lambda: os.rename("roots", "workspace"),
        lambda: os.rename("workspace", "roots"), lambda: os.rename("made", f"made{os.urandom(4).hex()}"),
        lambda: os.rename("workspace", f"made{os.urandom(4).hex()}"),
    ):
        try:
            act()
        except OSError:
            pass
        for name in os.listdir("."):
            if name.startswith("made"):
                try:
                    os.rmdir(name)
                except OSError:
                    pass
"""


@contextmanager
def flipping(directory: Path) -> Iterator[None]:
    """Replace the workspace, as its owner and repeatedly, by links, directories of root and nothing."""
    flipper = subprocess.Popen((sys.executable, "-c", _FLIPPER, directory), stdout=subprocess.PIPE)
    try:
        assert flipper.stdout is not None
        assert flipper.stdout.readline() == b"flipping\n"
        yield
    finally:
        flipper.kill()
        flipper.communicate()


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """A directory of another user, with a directory of root in it and another next to it."""
    for parent in (tmp_path, *tmp_path.parents):
        if not parent.stat().st_mode & 0o001:
            parent.chmod(parent.stat().st_mode | 0o011)
    (tmp_path / "target").mkdir(mode=0o755)
    (tmp_path / "target" / "kept").touch()
    (tmp_path / "theirs" / "roots").mkdir(parents=True)
    (tmp_path / "theirs" / "roots" / "kept").touch()
    os.chown(tmp_path / "theirs", MALLORY, MALLORY)
    return tmp_path / "theirs"


@only_root
def test_a_flipped_link_gives_nothing_of_roots(theirs: Path) -> None:
    """Whatever is swapped during the creation: no owner changes, and nothing of root is given away."""
    target = theirs.parent / "target"
    roots = {inode_of(target.stat()), inode_of((theirs / "roots").stat())}
    made = refused = 0
    with flipping(theirs):
        for _ in range(ROUNDS):
            try:
                found = ensure(prepare(theirs / "workspace", None, make=True))
            except ConfigError:
                refused += 1
            else:
                made += 1
                assert found.inode not in roots
            assert (target.stat().st_uid, target.stat().st_gid) == (0, 0)
    kept = next(path for path in theirs.rglob("kept")).parent
    assert (kept.stat().st_uid, made + refused) == (0, ROUNDS)


@only_root
def test_without_an_attacker_it_is_made_and_given(theirs: Path) -> None:
    """The control: the directory is created for the user; missing parents belong to root."""
    for path in (theirs / "workspace", theirs / "a" / "b" / "workspace"):
        found = ensure(prepare(path, None, make=True))
        status = path.stat()
        assert (found, found.inode) == (Workspace(path, NOBODY), inode_of(status))
        assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (*OWNER, 0o755)
        require_same(found)
    assert (theirs / "a").stat().st_uid == 0


def test_a_umask_holds(tmp_path: Path) -> None:
    """The directory has the mode that the umask allows."""
    before = os.umask(0o077)
    try:
        make_below(tmp_path, "made", OWNER, 0o755)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "made").stat().st_mode) == 0o700


@pytest.mark.parametrize("link", ["workspace", "a"])
def test_no_link_on_the_way_is_followed(tmp_path: Path, link: str) -> None:
    """A link in the place of the directory or above it is refused, on creation and on inspection."""
    (tmp_path / "target" / "workspace").mkdir(parents=True)
    (tmp_path / "a").mkdir()
    path = tmp_path / ("a/workspace" if link == "a" else "workspace")
    found = prepare(path, None, make=True)
    (tmp_path / "a").rmdir()
    (tmp_path / link).symlink_to(tmp_path / "target")
    before = (tmp_path / "target" / "workspace").stat()
    if link == "a":
        with pytest.raises(ConfigError, match=r"cannot be made: .*; name another with --workspace"):
            ensure(found)
    with pytest.raises(OSError, match=r"Not a directory|symbolic links|File exists"):
        make_at(path, OWNER, 0o755)
    with pytest.raises(OSError, match=r"Not a directory|symbolic links"):
        inode_at(path)
    assert (tmp_path / "target" / "workspace").stat() == before


def test_what_came_meanwhile_is_looked_at(tmp_path: Path) -> None:
    """A directory that another process created meanwhile is checked as well; a forbidden one stays forbidden."""
    path = tmp_path / "workspace"
    found = prepare(path, None, make=True)
    made = ensure(prepare(path, None, make=True))
    assert (ensure(found), ensure(found).inode) == (made, made.inode)
    (path / ".env").touch()
    assert ensure(found).hidden == (Path(".env"),)
    path.joinpath(".env").unlink()
    path.rmdir()
    path.symlink_to("/")
    with pytest.raises(ConfigError, match=r"contains all of this machine"):
        ensure(found)


def test_one_that_was_replaced_is_refused(tmp_path: Path) -> None:
    """A directory that was replaced by another, by a link to itself elsewhere, or by nothing is refused."""
    path = tmp_path / "workspace"
    found = ensure(prepare(path, None, make=True))
    assert ensure(found) == found
    path.rename(tmp_path / "moved")
    puts: tuple[Callable[[], None], ...] = (
        lambda: None,
        path.mkdir,
        lambda: path.symlink_to(tmp_path / "moved"),
    )
    for put in puts:
        put()
        for look in (ensure, require_same):
            with pytest.raises(
                ConfigError, match=rf"workspace {path} is no longer the directory .* which program changes"
            ):
                look(found)
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
