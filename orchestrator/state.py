"""State directories: private to one Sandbox, at /run/perstack inside; the broker's socket and the spool are in them.

They are made before their Sandboxes and removed after them, so after a crash they say which Sandboxes there may be.
"""

import errno
import fcntl
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from orchestrator.broker.gate import unlock
from orchestrator.disk.deletion import delete
from orchestrator.errors import BackendError
from orchestrator.sandbox import STATE_ROOT, User
from orchestrator.spool import Spool, found_spool, made_spool
from orchestrator.wire.identity import identify
from orchestrator.wire.line import LINE_BYTES
from orchestrator.wire.link import SPOOL_NAME
from orchestrator.wire.run import EventDetail

_NAME = 12
_LOCK = "lock"
# Together a second: no sweep holds a directory that is being made for longer than a moment.
_TRIES = 100
_PAUSE_SECONDS = 0.01
# Without a lock, a directory is being made or removed, unless whoever did so was killed.
_MAKING_SECONDS = 10


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
def job_directory(
    instance: str,
    job: str,
    *,
    again: bool = False,
    root: Path = STATE_ROOT,
    note: Callable[[str], None] = lambda _: None,
) -> Iterator[Path]:
    """Make the directory above a job's state directories, and remove it with all that is in it.

    Others may pass through it, since a Sandbox's user must, but not list it. What an orchestrator left that was killed
    is kept if the job is taken up `again`, else removed; the caller holds the job's lock. `note` is told what cannot be
    removed in the end: that is nobody's error, and the next command of the instance tries again.

    Raises:
        BackendError: somebody else has made a directory of that name or holds it, or none can be made.
    """
    directory = directory_of(instance, job, root)
    _make_passable(root)
    lock = _taken(directory, again=again)
    try:
        yield directory
    finally:
        _remove(directory, note)
        os.close(lock)


def _taken(directory: Path, *, again: bool) -> int:
    """Make a directory and hold its lock. A sweep may hold it for a moment, and remove it before it is ours."""
    left = _TRIES
    while True:
        left -= 1
        try:
            return _made(directory, again=again)
        except (BlockingIOError, FileExistsError, FileNotFoundError) as error:
            if not left:
                raise _unusable(directory, error) from error
        except OSError as error:
            raise _unusable(directory, error) from error
        time.sleep(_PAUSE_SECONDS)


def _made(directory: Path, *, again: bool) -> int:
    with suppress(FileExistsError):
        directory.mkdir(mode=0o711)
    if not _is_own(directory.lstat()):
        message = f"the state directory {directory} belongs to somebody else; remove what is there"
        raise BackendError(message)
    with ExitStack() as until_it_is_ours:
        lock = _locked(directory, make=True)
        until_it_is_ours.callback(os.close, lock)
        if not again and _empty(directory) is not None:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(directory))
        directory.chmod(0o711)
        until_it_is_ours.pop_all()
    return lock


def _locked(directory: Path, *, make: bool) -> int:
    """Take the lock that is in a directory now, or is made there; only who has it removes it.

    Raises:
        BlockingIOError: somebody has it.
        FileNotFoundError: there is none to take, or somebody had it, and has removed it or the directory.
    """
    path = directory / _LOCK
    lock = os.open(path, os.O_RDWR | (os.O_CREAT if make else 0) | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with ExitStack() as until_it_is_ours:
        until_it_is_ours.callback(os.close, lock)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.path.samestat(os.fstat(lock), path.lstat()):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        until_it_is_ours.pop_all()
    return lock


def _unusable(directory: Path, error: OSError) -> BackendError:
    if isinstance(error, BlockingIOError):
        message = f"the state directory {directory} is held by another process; wait until that has ended, or end it"
        return BackendError(message)
    remedy = (
        "remove what is there" if os.path.lexists(directory) else f"look at the space and mode of {directory.parent}"
    )
    message = f"the state directory {directory} cannot be made: {error.strerror}; {remedy}"
    return BackendError(message)


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


def remove_unused(directory: Path, note: Callable[[str], None] = lambda _: None) -> bool:
    """Remove the directory of a job that nobody works on; say whether it is gone, and `note` why it cannot be."""
    try:
        status = directory.lstat()
        if not _is_own(status):
            return False
        lock = _locked(directory, make=time.time() - status.st_mtime > _MAKING_SECONDS)
    except FileNotFoundError:
        return not os.path.lexists(directory)
    except OSError:
        return False
    try:
        return _remove(directory, note)
    finally:
        os.close(lock)


def _remove(directory: Path, note: Callable[[str], None]) -> bool:
    """Remove a directory whose lock is held, that last: once it is gone, what is there may be somebody else's."""
    left = _empty(directory)
    if left is not None:
        note(left_over(directory, left))
        return False
    with suppress(OSError):
        (directory / _LOCK).unlink(missing_ok=True)
        directory.rmdir()
    return True


def left_over(directory: Path, why: OSError) -> str:
    """Say what to do about a directory that Sandboxes wrote to and that cannot be removed."""
    return f"{directory} is left over and cannot be removed: {why.strerror}; remove it with rm -rf, as root if need be"


def _empty(directory: Path) -> OSError | None:
    """Remove all but the lock; give the first trouble where something is left."""
    try:
        troubles = [delete(path) for path in directory.iterdir() if path.name != _LOCK]
    except OSError as error:
        return error
    return next(filter(None, troubles), None)


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
        # What cannot be removed now is told of where the directory above is.
        delete(directory)


def _is_own(status: os.stat_result) -> bool:
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()


def _give(path: Path, user: User) -> None:
    if os.geteuid() == 0:
        os.chown(path, user.uid, user.gid, follow_symlinks=False)
