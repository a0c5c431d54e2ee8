"""A container's directory tree is deleted completely, and nothing else is, even if it changes meanwhile."""

import errno
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import settings

from orchestrator.disk.deletion import delete
from tests.support.odd_trees import cleared

ROOT = os.geteuid() == 0
_MANY_EXAMPLES = settings.get_current_profile_name() == "fuzz"
DEEP = 10_000 if _MANY_EXAMPLES else 1_100
"""Deeper than Python calls itself (1 000), and than a path of "deep/" may be long (4 096 bytes)."""
MANY = 100_000 if _MANY_EXAMPLES else 5_000
"""More than the kernel lists at once, many times over."""
MOVED = 8 if _MANY_EXAMPLES else 3
"""Trees that are moved about while they are deleted."""


def dig(top: Path, depth: int, *, mode: int = 0o755, beside: bool = False) -> None:
    """Create nested directories, deeper than a path can be."""
    top.mkdir()
    here = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(depth):
        os.mkdir("deep", dir_fd=here)
        if beside:
            os.mkdir("e", dir_fd=here)
            os.close(os.open("f", os.O_WRONLY | os.O_CREAT, dir_fd=here))
        inner = os.open("deep", os.O_RDONLY | os.O_DIRECTORY, dir_fd=here)
        os.fchmod(here, mode)
        os.close(here)
        here = inner
    os.close(here)


def as_somebody(work: Callable[[], int]) -> int:
    """Fork an unprivileged process that runs `work`, and return its exit code."""
    child = os.fork()
    if child == 0:
        try:
            if ROOT:
                os.setgroups([])
                os.setresgid(65532, 65532, 65532)
                os.setresuid(65532, 65532, 65532)
            os._exit(work())
        except BaseException:  # noqa: BLE001 - a fork of the tests ends here
            os._exit(99)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def passable(directory: Path) -> None:
    """Allow all users to enter a directory of the tests."""
    for parent in (directory, *directory.parents):
        if not parent.stat().st_mode & 0o001:
            parent.chmod(parent.stat().st_mode | 0o011)


def names(directory: Path) -> list[str]:
    """The names in a directory."""
    return sorted(path.name for path in directory.iterdir())


def test_depth_does_not_matter(tmp_path: Path) -> None:
    """A tree deeper than Python's recursion and the kernel's path limit is deleted; the control, rmtree, fails."""
    with cleared(tmp_path / "top"):
        dig(tmp_path / "top", DEEP, beside=True)
        with pytest.raises(RecursionError):
            shutil.rmtree(tmp_path / "top", ignore_errors=True)
        assert delete(tmp_path / "top") is None
        assert names(tmp_path) == []


def test_many_names(tmp_path: Path) -> None:
    """Files and directories in one directory are deleted, even if their names are not text."""
    top = tmp_path / "top"
    top.mkdir()
    here = os.open(top, os.O_RDONLY)
    for number in range(MANY):
        # Mostly files, which are faster to create.
        if number % 10:
            os.close(os.open(b"\xff%d" % number, os.O_WRONLY | os.O_CREAT, dir_fd=here))
        else:
            os.mkdir(b"d%d" % number, dir_fd=here)
    os.close(here)
    assert delete(top) is None
    assert names(tmp_path) == []


def test_no_link_is_followed(tmp_path: Path) -> None:
    """Links in the tree, or in place of it, are removed; their targets are unchanged."""
    outside, top = tmp_path / "outside", tmp_path / "top"
    (outside / "deep").mkdir(parents=True)
    (outside / "kept").write_text("kept")
    top.mkdir()
    for where, what in (("dir", outside), ("file", outside / "kept"), ("up", ".."), ("none", "nowhere"), ("self", ".")):
        (top / where).symlink_to(what)
    (tmp_path / "instead").symlink_to(outside)
    os.link(outside / "kept", top / "hard")
    assert (delete(top), delete(tmp_path / "instead")) == (None, None)
    assert (names(tmp_path), names(outside), (outside / "kept").read_text()) == (["outside"], ["deep", "kept"], "kept")


def test_whatever_it_is(tmp_path: Path) -> None:
    """A file, a pipe, a socket's file, a missing name and a missing parent are all handled."""
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe")
    for name in ("file", "pipe", "absent", "absent/absent"):
        assert delete(tmp_path / name) is None
    directory = os.open(tmp_path, os.O_RDONLY)
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "two").mkdir()
    assert delete("one", dir_fd=directory) is None
    os.close(directory)
    assert names(tmp_path) == []


@pytest.mark.parametrize("mode", [0o000, 0o111, 0o444, 0o500])
def test_modes_are_the_owner_s_to_change(tmp_path: Path, mode: int) -> None:
    """A directory of any mode is deleted by its owner; root is tried without its privileges."""
    passable(tmp_path)
    base = tmp_path / "base"
    base.mkdir()
    if ROOT:
        os.chown(base, 65532, 65532)

    def work() -> int:
        dig(base / "top", 30, mode=mode, beside=True)
        (base / "top").chmod(mode)
        shutil.rmtree(base / "top", ignore_errors=True)
        if not (base / "top").exists():
            return 3  # The control: access must be forbidden.
        return 0 if delete(base / "top") is None and names(base) == [] else 4

    assert as_somebody(work) == 0


def test_what_stays_is_reported(tmp_path: Path) -> None:
    """The first error is returned, not raised; everything else is deleted."""
    if not ROOT:
        pytest.skip("only root can make what its owner cannot remove")
    top = tmp_path / "top"
    (top / "a" / "b").mkdir(parents=True)
    (top / "a" / "b" / "stays").touch()
    (top / "c").mkdir()
    for number in range(50):
        (top / f"{number}").touch()

    def work() -> int:
        trouble = delete(top)
        return 0 if trouble is not None and trouble.errno == errno.EACCES else 4

    passable(tmp_path)
    os.chown(top, 65532, 65532)
    os.chown(tmp_path, 65532, 65532)
    assert as_somebody(work) == 0
    assert (names(top), names(top / "a" / "b")) == (["a"], ["stays"])
    assert delete(top) is None


def test_what_is_mounted_is_neither_entered_nor_removed(tmp_path: Path) -> None:
    """Mount points are neither entered nor removed, even if they are on the same file system."""
    if not ROOT:
        pytest.skip("only root mounts")
    top, other = tmp_path / "top", tmp_path / "other"
    (top / "a" / "mounted").mkdir(parents=True)
    (top / "b").mkdir()
    other.mkdir()
    (other / "kept").touch()
    program = f"""
import subprocess, sys
from orchestrator.disk.deletion import delete
subprocess.run(["mount", "--bind", {str(other)!r}, {str(top / "a" / "mounted")!r}], check=True)
trouble = delete({str(top)!r})
print(trouble and trouble.errno)
"""
    command = ("unshare", "--mount", sys.executable, "-c", program)
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    if "unshare" in done.stderr:
        pytest.skip("no mount namespace can be made here")
    assert (done.stdout, done.stderr) == (f"{errno.EBUSY}\n", "")
    assert (names(top), names(other)) == (["a"], ["kept"])
    assert delete(top) is None


_MOVER = """
import os, sys
top, aside = sys.argv[1:]
print("moving", flush=True)
while True:
    for one, two in ((f"{top}/a/b", f"{aside}/b"), (f"{aside}/b", f"{top}/a/b"), (f"{top}/a/b/c", f"{aside}/c"),
                     (f"{aside}/c", f"{top}/a/b/c")):
        try:
            os.rename(one, two)
        except OSError:
            pass
    try:
        os.symlink(f"{aside}/../outside", f"{top}/a/link")
        os.rename(f"{top}/a/link", f"{top}/a/b/c/d")
    except OSError:
        pass
"""


def test_directories_that_are_moved_meanwhile_lead_nowhere_else(tmp_path: Path) -> None:
    """A process moves parts of the tree and puts links in their place: nothing outside is ever touched."""
    aside, outside = tmp_path / "aside", tmp_path / "outside"
    outside.mkdir()
    aside.mkdir()
    (aside / "kept").touch()
    (outside / "kept").touch()
    for attempt in range(MOVED):
        top = tmp_path / f"top{attempt}"
        (top / "a" / "b" / "c" / "d").mkdir(parents=True)
        for number in range(300):
            (top / "a" / "b" / "c" / f"{number}").mkdir()
            (top / "a" / "b" / "c" / f"{number}" / "x").mkdir()
        mover = subprocess.Popen((sys.executable, "-c", _MOVER, top, aside), stdout=subprocess.PIPE)
        try:
            assert mover.stdout is not None
            assert mover.stdout.readline() == b"moving\n"
            delete(top)
        finally:
            mover.send_signal(signal.SIGKILL)
            mover.communicate()
        assert delete(top) is None
        assert (aside / "kept").exists()
        assert names(outside) == ["kept"]


def test_a_few_descriptors_are_enough(tmp_path: Path) -> None:
    """Three free descriptors are enough; with none an error is returned, where rmtree would report nothing."""
    dig(tmp_path / "top", 100, beside=True)
    spent: list[int] = []
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        # Regardless of how many earlier tests have left open.
        highest = max(int(entry.name) for entry in Path("/proc/self/fd").iterdir())
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 16, hard))
        with suppress(OSError):
            while True:
                spent.append(os.open("/", os.O_RDONLY))
        shutil.rmtree(tmp_path / "top", ignore_errors=True)
        none = delete(tmp_path / "top")
        for _ in range(3):
            os.close(spent.pop())
        some = delete(tmp_path / "top")
    finally:
        for fd in spent:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert none is not None
    assert (none.errno, some, names(tmp_path)) == (errno.EMFILE, None, [])


def test_a_small_directory_takes_no_longer_than_with_rmtree(tmp_path: Path) -> None:
    """The state directory of a Run (a spool and a socket directory) is deleted as fast as with rmtree."""

    def seconds(remove: Callable[[Path], object]) -> float:
        best = 1.0
        for _ in range(50):
            (tmp_path / "1" / "gate" / "in").mkdir(parents=True)
            (tmp_path / "1" / "events.jsonl").touch()
            began = time.perf_counter()
            remove(tmp_path / "1")
            best = min(best, time.perf_counter() - began)
        return best

    ours, theirs = seconds(delete), seconds(shutil.rmtree)
    assert ours < 3 * theirs + 0.0005, (ours, theirs)
