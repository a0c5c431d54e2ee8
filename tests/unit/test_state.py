"""A job's directory among others that sweep: made, held, and never taken from under whoever holds it."""

import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from orchestrator import state
from orchestrator.errors import BackendError
from orchestrator.state import directory_of, job_directory, remove_unused
from tests.support.trees import cleared, dig, unremovable

SWEEPERS = 2
STARTS = 300
# Says that it has begun, then sweeps without a pause until it is told to end, which it does between two directories.
_SWEEPER = """
import signal
import sys
from pathlib import Path
from orchestrator.state import directories, remove_unused
told = []
signal.signal(signal.SIGTERM, lambda *_: told.append(True))
print("sweeping", flush=True)
while not told:
    for directory in directories("i", Path(sys.argv[1])):
        remove_unused(directory)
"""


@contextmanager
def sweeping(root: Path) -> Iterator[None]:
    """Have other processes sweep, as other commands on the same store do when they begin."""
    command = (sys.executable, "-c", _SWEEPER, str(root))
    sweepers = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(SWEEPERS)]
    try:
        for sweeper in sweepers:
            assert sweeper.stdout is not None
            assert sweeper.stdout.readline() == b"sweeping\n"
        yield
    finally:
        for sweeper in sweepers:
            sweeper.terminate()
            sweeper.communicate(timeout=60)


@pytest.mark.parametrize("again", [False, True])
def test_jobs_start_while_others_sweep(tmp_path: Path, *, again: bool) -> None:
    """Each gets its directory, and keeps what it makes there until it is done."""
    with sweeping(tmp_path):
        for number in range(STARTS):
            with job_directory("i", f"j{number % 3}", again=again, root=tmp_path) as made:
                (made / "1").mkdir()
                (made / "1/spool").touch()
                assert not remove_unused(made)
                assert sorted(path.name for path in made.rglob("*")) == ["1", "lock", "spool"]
    for number in range(3):
        assert remove_unused(directory_of("i", f"j{number}", tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_one_that_somebody_else_holds_is_left_to_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Said in one sentence; what they have there stays."""
    monkeypatch.setattr(state, "_TRIES", 2)
    with job_directory("i", "j", root=tmp_path) as held:
        (held / "1").mkdir()
        for again in (False, True):
            with (
                pytest.raises(BackendError, match=f"{held} is held by another process; wait until that has ended"),
                job_directory("i", "j", again=again, root=tmp_path),
            ):
                pass
        assert sorted(path.name for path in held.iterdir()) == ["1", "lock"]


def test_a_lock_that_is_none_is_said(tmp_path: Path) -> None:
    """No trace of Python: what is there, and what to do."""
    (directory_of("i", "j", tmp_path) / "lock").mkdir(parents=True)
    for again in (False, True):
        with (
            pytest.raises(BackendError, match="cannot be made: Is a directory; remove what is there"),
            job_directory("i", "j", again=again, root=tmp_path),
        ):
            pass


def test_what_cannot_be_removed_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job never starts among what another left; who sweeps says what to do, and goes on."""
    monkeypatch.setattr(state, "_TRIES", 2)
    left = directory_of("i", "j", tmp_path)
    (left / "1").mkdir(parents=True)
    (left / "1" / "stays").touch()
    (left / "2").mkdir()
    (left / "lock").touch()
    notes: list[str] = []
    with unremovable(left / "1" / "stays"):
        assert not remove_unused(left, notes.append)
        with (
            pytest.raises(BackendError, match="cannot be made: File exists; remove what is there"),
            job_directory("i", "j", root=tmp_path),
        ):
            pass
        with job_directory("i", "j", again=True, root=tmp_path, note=notes.append):
            pass
    why = (
        f"{left} is left over and cannot be removed: Operation not permitted; remove it with rm -rf, as root if need be"
    )
    assert notes == [why, why]
    assert remove_unused(left, notes.append)
    assert (list(tmp_path.iterdir()), notes) == ([], [why, why])


def test_a_deep_tree_is_removed_like_any_other(tmp_path: Path) -> None:
    """By the job itself, by the next of its name, and by a sweep."""
    root = tmp_path / "root"
    left = directory_of("i", "j", root)
    with cleared(root):
        with job_directory("i", "j", root=root) as made:
            (made / "1").mkdir()
            dig(made / "1")
        assert list(root.iterdir()) == []
        for sweeps in (False, True):
            (left / "1").mkdir(parents=True)
            dig(left / "1")
            (left / "lock").touch()
            if sweeps:
                assert remove_unused(left)
            else:
                with job_directory("i", "j", root=root) as made:
                    assert [path.name for path in made.iterdir()] == ["lock"]
            assert list(root.iterdir()) == []


def test_where_nothing_can_be_made_is_said() -> None:
    """There is nothing to remove."""
    with (
        pytest.raises(BackendError, match=r"cannot be made: .*; look at the space and mode of /proc/self"),
        job_directory("i", "j", root=Path("/proc/self")),
    ):
        pass


def test_somebody_else_s_is_refused(tmp_path: Path) -> None:
    """Nothing of it is touched, and nobody waits for it to go away."""
    directory_of("i", "j", tmp_path).touch()
    for again in (False, True):
        with (
            pytest.raises(BackendError, match="belongs to somebody else; remove what is there"),
            job_directory("i", "j", again=again, root=tmp_path),
        ):
            pass
    assert directory_of("i", "j", tmp_path).is_file()


def test_a_sweep_that_comes_late_takes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It opened the lock of a directory that was removed, and made again, before it could take that lock."""
    directory = directory_of("i", "j", tmp_path)
    directory.mkdir()
    (directory / "lock").touch()
    flock = fcntl.flock

    def late(lock: int, how: int) -> None:
        monkeypatch.undo()
        assert remove_unused(directory)
        directory.mkdir()
        (directory / "lock").touch()
        flock(lock, how)

    monkeypatch.setattr(fcntl, "flock", late)
    assert not remove_unused(directory)
    assert [path.name for path in directory.iterdir()] == ["lock"]


def test_one_without_a_lock_is_left_to_who_makes_it(tmp_path: Path) -> None:
    """Sweeps that each made a lock there would keep it from being made, and each other from removing it."""
    directory = directory_of("i", "j", tmp_path)
    directory.mkdir()
    assert not remove_unused(directory)
    assert list(directory.iterdir()) == []
    long_ago = time.time() - 60
    os.utime(directory, (long_ago, long_ago))
    assert remove_unused(directory)


def test_what_another_left_is_removed_first(tmp_path: Path) -> None:
    """Unless the job is taken up again; whether or not its lock is still there."""
    for again in (False, True):
        left = directory_of("i", "j", tmp_path) / "1/spool"
        left.parent.mkdir(parents=True)
        left.touch()
        with job_directory("i", "j", again=again, root=tmp_path) as made:
            assert left.exists() == again
            assert (made / "lock").exists()
        assert list(tmp_path.iterdir()) == []
