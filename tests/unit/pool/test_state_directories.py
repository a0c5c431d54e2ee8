"""A job's directory while other processes collect garbage: made, locked, and never taken from its holder."""

import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from orchestrator.errors import BackendError
from orchestrator.pool import state_directories
from orchestrator.pool.state_directories import directory_of, job_directory, remove_unused
from tests.support.log_lines import collect_log
from tests.support.odd_trees import cleared, dig, unremovable

SWEEPERS = 2
STARTS = 100
# Prints that it has begun, then collects garbage without a pause until SIGTERM, and ends between two directories.
_SWEEPER = """
import signal
import sys
from pathlib import Path
from orchestrator.pool.state_directories import directories, remove_unused
told = []
signal.signal(signal.SIGTERM, lambda *_: told.append(True))
print("sweeping", flush=True)
while not told:
    for directory in directories("i", Path(sys.argv[1])):
        remove_unused(directory)
"""


@contextmanager
def sweeping(root: Path) -> Iterator[None]:
    """Run other processes that collect garbage, as other commands on the same store do at their start."""
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


@pytest.mark.parametrize("keep_content", [False, True])
def test_jobs_start_while_others_sweep(tmp_path: Path, *, keep_content: bool) -> None:
    """Each job gets its directory, and keeps its content until it is done."""
    with sweeping(tmp_path):
        for number in range(STARTS):
            with job_directory("i", f"j{number % 3}", keep_content=keep_content, root=tmp_path) as made:
                (made / "1").mkdir()
                (made / "1/spool").touch()
                assert not remove_unused(made)
                assert sorted(path.name for path in made.rglob("*")) == ["1", "lock", "spool"]
    for number in range(3):
        assert remove_unused(directory_of("i", f"j{number}", tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_one_that_another_process_holds_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error is one sentence, and the content of the other process stays."""
    monkeypatch.setattr(state_directories, "_TRIES", 2)
    with job_directory("i", "j", root=tmp_path) as held:
        (held / "1").mkdir()
        for keep_content in (False, True):
            with (
                pytest.raises(BackendError, match=f"{held} is held by another process; wait until that has ended"),
                job_directory("i", "j", keep_content=keep_content, root=tmp_path),
            ):
                pass
        assert sorted(path.name for path in held.iterdir()) == ["1", "lock"]


def test_another_file_in_place_of_a_lock_is_reported(tmp_path: Path) -> None:
    """The error names what is there and the remedy, without a traceback."""
    (directory_of("i", "j", tmp_path) / "lock").mkdir(parents=True)
    for keep_content in (False, True):
        with (
            pytest.raises(BackendError, match="cannot be made: Is a directory; remove what is there"),
            job_directory("i", "j", keep_content=keep_content, root=tmp_path),
        ):
            pass


def test_what_cannot_be_removed_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job never starts among another's files; garbage collection reports the remedy and continues."""
    monkeypatch.setattr(state_directories, "_TRIES", 2)
    left = directory_of("i", "j", tmp_path)
    (left / "1").mkdir(parents=True)
    (left / "1" / "stays").touch()
    (left / "2").mkdir()
    (left / "lock").touch()
    said: list[str] = []
    with collect_log(said), unremovable(left / "1" / "stays"):
        assert not remove_unused(left)
        with (
            pytest.raises(BackendError, match="cannot be made: File exists; remove what is there"),
            job_directory("i", "j", root=tmp_path),
        ):
            pass
        with job_directory("i", "j", keep_content=True, root=tmp_path):
            pass
    why = (
        f"{left} is left over and cannot be removed: Operation not permitted; remove it with rm -rf, as root if needed"
    )
    assert said == [why, why]
    with collect_log(said):
        assert remove_unused(left)
    assert (list(tmp_path.iterdir()), said) == ([], [why, why])


def test_a_deep_tree_is_removed_like_any_other(tmp_path: Path) -> None:
    """The job itself, the next of its name, and garbage collection can each remove it."""
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


def test_a_place_where_nothing_can_be_made_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error does not suggest removing anything."""
    monkeypatch.setattr(state_directories, "_TRIES", 2)
    with (
        pytest.raises(BackendError, match=r"cannot be made: .*; look at the space and mode of /proc/self"),
        job_directory("i", "j", root=Path("/proc/self")),
    ):
        pass


def test_one_of_another_user_is_refused(tmp_path: Path) -> None:
    """Another user's file is not touched, and the error comes at once."""
    directory_of("i", "j", tmp_path).touch()
    for keep_content in (False, True):
        with (
            pytest.raises(BackendError, match="belongs to another user; remove what is there"),
            job_directory("i", "j", keep_content=keep_content, root=tmp_path),
        ):
            pass
    assert directory_of("i", "j", tmp_path).is_file()


def test_a_sweep_that_comes_late_takes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It opened the lock of a directory that was removed and made again, before it could take that lock."""
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


def test_a_directory_without_a_lock_is_left_to_its_owner(tmp_path: Path) -> None:
    """Otherwise concurrent garbage collections could each make a lock there, and block its owner and each other."""
    directory = directory_of("i", "j", tmp_path)
    directory.mkdir()
    assert not remove_unused(directory)
    assert list(directory.iterdir()) == []
    long_ago = time.time() - 60
    os.utime(directory, (long_ago, long_ago))
    assert remove_unused(directory)


def test_what_another_left_is_removed_first(tmp_path: Path) -> None:
    """Another process's files are removed, with or without a lock, unless the job is resumed."""
    for keep_content in (False, True):
        left = directory_of("i", "j", tmp_path) / "1/spool"
        left.parent.mkdir(parents=True)
        left.touch()
        with job_directory("i", "j", keep_content=keep_content, root=tmp_path) as made:
            assert left.exists() == keep_content
            assert (made / "lock").exists()
        assert list(tmp_path.iterdir()) == []
