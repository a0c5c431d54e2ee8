"""State directories: private to one Sandbox, at /run/perstack inside; the broker's socket and the spool are in them.

They are made before their Sandboxes and removed after them, so after a crash they say which Sandboxes there may be.
"""

import fcntl
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from orchestrator.broker.gate import unlock
from orchestrator.errors import BackendError
from orchestrator.sandbox import STATE_ROOT, User
from orchestrator.spool import Spool, found_spool, made_spool
from orchestrator.wire.identity import identify
from orchestrator.wire.line import LINE_BYTES
from orchestrator.wire.link import SPOOL_NAME
from orchestrator.wire.run import EventDetail

_NAME = 12
_LOCK = "lock"


def state_prefix(instance: str) -> str:
    """How the names of all directories begin that an instance makes for its Sandboxes."""
    return f"perstack-{identify(instance)[:_NAME]}-"


def directory_of(instance: str, job: str, root: Path = STATE_ROOT) -> Path:
    """Where the state directories of a job are; `root` is above those of all jobs."""
    return root / f"{state_prefix(instance)}{identify(job)[:_NAME]}"


def directories(instance: str, root: Path = STATE_ROOT) -> list[Path]:
    """List the directories above the state directories of all jobs of an instance."""
    return sorted(root.glob(f"{state_prefix(instance)}*"))


@contextmanager
def job_directory(instance: str, job: str, *, again: bool = False, root: Path = STATE_ROOT) -> Iterator[Path]:
    """Make the directory above a job's state directories, and remove it with all that is in it.

    Others may pass through it, since a Sandbox's user must, but not list it. What an orchestrator left that was killed
    is kept if the job is taken up `again`, else removed; the caller holds the job's lock.

    Raises:
        BackendError: somebody else has made a directory of that name, or none can be made.
    """
    directory = directory_of(instance, job, root)
    _make_passable(root)
    if not again:
        remove_unused(directory)
    try:
        directory.mkdir(mode=0o711, exist_ok=again)
        status = directory.lstat()
    except OSError as error:
        message = f"the state directory {directory} cannot be made: {error.strerror}; remove what is there"
        raise BackendError(message) from error
    if not _is_own(status):
        message = f"the state directory {directory} belongs to somebody else; remove what is there"
        raise BackendError(message)
    directory.chmod(0o711)
    lock = os.open(directory / _LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield directory
    finally:
        _remove(directory)
        os.close(lock)


def _make_passable(root: Path) -> None:
    """Make the directory above those of all jobs, where it is not there."""
    if root.is_dir():
        return
    try:
        root.mkdir(mode=0o711, exist_ok=True)
    except OSError as error:
        message = f"{root} cannot be made: {error.strerror}; {unwritable(root.parent)}"
        raise BackendError(message) from error


def unwritable(volume: Path) -> str:
    """Say what to do about a volume in which nothing can be made."""
    return (
        f"who runs this (user {os.geteuid()}) must own the root of the volume at {volume}: use a StorageClass that"
        f" honours fsGroup, or have root do `chown {os.geteuid()} {volume}` once"
    )


def remove_unused(directory: Path) -> bool:
    """Remove the directory of a job that nobody works on; say whether it is gone."""
    try:
        status = directory.lstat()
        if not _is_own(status):
            return False
        lock = os.open(directory / _LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    else:
        _remove(directory)
        return True
    finally:
        os.close(lock)


def _remove(directory: Path) -> None:
    for state in directory.glob("*/"):
        unlock(state)
    shutil.rmtree(directory, ignore_errors=True)


def ordinals(above: Path) -> list[int]:
    """List the numbers of the Sandboxes that have a state directory below `above`."""
    return sorted(int(path.name) for path in above.glob("*/") if path.name.isdecimal())


@contextmanager
def state_directory(above: Path, ordinal: int, user: User, detail: EventDetail) -> Iterator[tuple[Path, Spool]]:
    """Make a Sandbox's state directory, owned by `user`, with an empty spool that is open before the Sandbox exists."""
    directory = above / str(ordinal)
    directory.mkdir(mode=0o700)
    fd = made_spool(directory / SPOOL_NAME)
    for path in (directory / SPOOL_NAME, directory):
        _give(path, user)
    with _kept(directory, fd, detail) as spool:
        yield directory, spool


@contextmanager
def found_directory(above: Path, ordinal: int, detail: EventDetail) -> Iterator[tuple[Path, Spool]]:
    """Take up a state directory that a Sandbox may have worked in; a spool that is no file is tampered with."""
    directory = above / str(ordinal)
    unlock(directory)
    fd = found_spool(directory / SPOOL_NAME)
    missing = fd is None
    with _kept(directory, os.open(os.devnull, os.O_RDONLY) if fd is None else fd, detail) as spool:
        if missing:
            spool.tampered = "the event spool is gone, or is no file any more"
        yield directory, spool


@contextmanager
def _kept(directory: Path, fd: int, detail: EventDetail) -> Iterator[Spool]:
    try:
        yield Spool(fd, line_bytes=LINE_BYTES[detail])
    finally:
        os.close(fd)
        shutil.rmtree(directory, ignore_errors=True)


def _is_own(status: os.stat_result) -> bool:
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()


def _give(path: Path, user: User) -> None:
    if os.geteuid() == 0:
        os.chown(path, user.uid, user.gid, follow_symlinks=False)
