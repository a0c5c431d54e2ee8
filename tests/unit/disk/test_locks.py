"""A lock has one holder at a time, whatever becomes of its file."""

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.disk.locks import lock_file

_HOLD = """
import sys
from pathlib import Path
from orchestrator.disk.locks import lock_file
lock_file(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def descriptors() -> int:
    """The number of descriptors that are open in this process."""
    return len(list(Path("/proc/self/fd").iterdir()))


def test_another_process_is_refused_until_the_holder_closes_it(tmp_path: Path) -> None:
    """It does not wait, and leaves no descriptor open."""
    path = tmp_path / "lock"
    first = lock_file(path)
    before = descriptors()
    with pytest.raises(BlockingIOError):
        lock_file(path)
    assert descriptors() == before
    os.close(first)
    os.close(lock_file(path))
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_killed_holder_frees_it(tmp_path: Path) -> None:
    """The kernel frees the lock of a process that ends in any way."""
    path = tmp_path / "lock"
    with subprocess.Popen(
        [sys.executable, "-c", _HOLD, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(BlockingIOError):
            lock_file(path)
        holder.kill()
        holder.wait(timeout=10)
        os.close(lock_file(path))


@pytest.mark.parametrize("replaced", [False, True])
def test_a_file_that_was_removed_meanwhile_is_not_held(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    replaced: bool,  # noqa: FBT001 - a parameter
) -> None:
    """Another process would lock the file that has the name now."""
    path, lock = tmp_path / "lock", fcntl.flock

    def late(fd: int, operation: int) -> None:
        path.unlink()
        if replaced:
            path.touch()
        lock(fd, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    before = descriptors()
    with pytest.raises(FileNotFoundError):
        lock_file(path)
    assert descriptors() == before


def test_a_missing_file_is_made_only_on_demand(tmp_path: Path) -> None:
    """Without `make` nothing appears."""
    with pytest.raises(FileNotFoundError):
        lock_file(tmp_path / "lock", make=False)
    assert list(tmp_path.iterdir()) == []


def test_no_link_is_followed(tmp_path: Path) -> None:
    """A link at the path is refused, and its target is not made."""
    (tmp_path / "lock").symlink_to(tmp_path / "target")
    with pytest.raises(OSError, match=os.strerror(errno.ELOOP)):
        lock_file(tmp_path / "lock")
    assert not (tmp_path / "target").exists()
