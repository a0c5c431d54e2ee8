"""State directories: private to one Sandbox, with the broker's socket and the spool, at /run/perstack inside.

That of a Sandbox that a stream links has only the mirror of its spool.

They are made before their Sandboxes and removed after them, so after a crash they show which Sandboxes may exist.
"""

import errno
import os
import stat
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from orchestrator.disk.deletion import delete
from orchestrator.disk.directory import unwritable_remedy
from orchestrator.disk.locks import lock_file
from orchestrator.errors import BackendError
from orchestrator.events.spool import Spool, create_spool, open_spool
from orchestrator.log import get_logger
from orchestrator.sandbox.api import STATE_ROOT, User
from orchestrator.sandbox.socket_directory import unseal
from orchestrator.wire.identity import identify
from orchestrator.wire.layout import SPOOL_NAME
from orchestrator.wire.line import LINE_BYTES
from orchestrator.wire.run import EventDetail

_log = get_logger(__name__)
_NAME_CHARACTERS = 12
_LOCK = "lock"
# Together a second: garbage collection holds a directory that is being made only for a moment.
_TRIES = 100
_PAUSE_SECONDS = 0.01
# A directory without a lock is being made or removed, unless the process that did so was killed.
_MAKING_SECONDS = 10


def state_prefix(instance: str) -> str:
    """Return the prefix of all directories that an instance makes for its Sandboxes."""
    return f"perstack-{identify(instance)[:_NAME_CHARACTERS]}-"


def directory_of(instance: str, job: str, root: Path = STATE_ROOT) -> Path:
    """Return the directory above a job's state directories; `root` is above those of all jobs."""
    return root / f"{state_prefix(instance)}{identify(job)[:_NAME_CHARACTERS]}"


def directories(instance: str, root: Path = STATE_ROOT) -> list[Path]:
    """List the directories above the state directories of all jobs of an instance."""
    return sorted(root.glob(f"{state_prefix(instance)}*"))


@contextmanager
def job_directory(
    instance: str,
    job: str,
    *,
    keep_content: bool = False,
    root: Path = STATE_ROOT,
) -> Iterator[Path]:
    """Make the directory above a job's state directories, and remove it with its content.

    Others may pass through it, since a Sandbox's user must, but not list it. The content left by a killed orchestrator
    is kept with `keep_content`, else removed; the caller holds the job's lock. What cannot be removed in
    the end is a warning in the log and not an error: the instance's next command tries again.

    Raises:
        BackendError: another user or process has a directory of that name, or it cannot be made.
    """
    directory = directory_of(instance, job, root)
    _make_passable(root)
    lock = _lock_directory(directory, keep_content=keep_content)
    try:
        yield directory
    finally:
        _remove(directory)
        os.close(lock)


def _lock_directory(directory: Path, *, keep_content: bool) -> int:
    """Make a directory and hold its lock. Garbage collection may briefly hold it, and remove it before it is ours.

    Unlike a job's lock in the store, this one is removed, with its directory and by its holder alone. So each step may
    find that another process was faster, and all of them are tried again.
    """
    left = _TRIES
    while True:
        left -= 1
        try:
            return _make_locked(directory, keep_content=keep_content)
        except (BlockingIOError, FileExistsError, FileNotFoundError) as error:
            if not left:
                raise _unusable(directory, error) from error
        except OSError as error:
            raise _unusable(directory, error) from error
        time.sleep(_PAUSE_SECONDS)


def _make_locked(directory: Path, *, keep_content: bool) -> int:
    with suppress(FileExistsError):
        directory.mkdir(mode=0o711)
    if not _is_own(directory.lstat()):
        message = f"the state directory {directory} belongs to another user; remove what is there"
        raise BackendError(message)
    with ExitStack() as until_it_is_ours:
        lock = lock_file(directory / _LOCK)
        until_it_is_ours.callback(os.close, lock)
        if not keep_content and _empty(directory) is not None:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(directory))
        directory.chmod(0o711)
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
    """Make the directory above those of all jobs, if it is missing."""
    if root.is_dir():
        return
    try:
        # The mount point of a claim must exist already.
        root.mkdir(mode=0o711, parents=root == STATE_ROOT, exist_ok=True)
    except OSError as error:
        message = f"{root} cannot be made: {error.strerror}; {unwritable_remedy(root.parent)}"
        raise BackendError(message) from error


def remove_unused(directory: Path) -> bool:
    """Remove the directory of a job that is not being worked on; return whether it is gone, log why if not."""
    try:
        status = directory.lstat()
        if not _is_own(status):
            return False
        lock = lock_file(directory / _LOCK, make=time.time() - status.st_mtime > _MAKING_SECONDS)
    except FileNotFoundError:
        return not os.path.lexists(directory)
    except OSError:
        return False
    try:
        return _remove(directory)
    finally:
        os.close(lock)


def _remove(directory: Path) -> bool:
    """Remove a directory whose lock is held, that last: after that, a new directory there may be another process's."""
    left = _empty(directory)
    if left is not None:
        warn_not_removed(directory, left)
        return False
    with suppress(OSError):
        (directory / _LOCK).unlink(missing_ok=True)
        directory.rmdir()
    return True


def warn_not_removed(directory: Path, why: OSError) -> None:
    """Log the remedy for a directory that Sandboxes wrote to and that cannot be removed."""
    _log.warning(
        "%s is left over and cannot be removed: %s; remove it with rm -rf, as root if needed", directory, why.strerror
    )


def _empty(directory: Path) -> OSError | None:
    """Remove all but the lock; return the first error if something is left."""
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
    """Make a Sandbox's state directory, owned by `user`, with an empty spool; open that before the Sandbox exists."""
    directory = above / str(ordinal)
    directory.mkdir(mode=0o700)
    fd = create_spool(directory / SPOOL_NAME)
    for path in (directory / SPOOL_NAME, directory):
        _change_owner(path, user)
    with _hold_directory(directory, fd, detail) as spool:
        yield directory, spool


@contextmanager
def existing_state_directory(above: Path, ordinal: int, detail: EventDetail) -> Iterator[tuple[Path, Spool]]:
    """Reopen a state directory that a Sandbox may have worked in; a spool that is not a file counts as tampered."""
    directory = above / str(ordinal)
    unseal(directory)
    fd = open_spool(directory / SPOOL_NAME)
    missing = fd is None
    with _hold_directory(directory, os.open(os.devnull, os.O_RDONLY) if fd is None else fd, detail) as spool:
        if missing:
            spool.tampered = "the event spool is gone, or no longer a file"
        yield directory, spool


@contextmanager
def _hold_directory(directory: Path, fd: int, detail: EventDetail) -> Iterator[Spool]:
    try:
        yield Spool(fd, line_bytes=LINE_BYTES[detail])
    finally:
        os.close(fd)
        # What cannot be removed now is reported with the directory above.
        delete(directory)


def _is_own(status: os.stat_result) -> bool:
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()


def _change_owner(path: Path, user: User) -> None:
    if os.geteuid() == 0:
        os.chown(path, user.uid, user.gid, follow_symlinks=False)
