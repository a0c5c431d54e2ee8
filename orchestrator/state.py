"""State directories: private to one Sandbox, at /run/perstack inside; they hold the broker's socket and the spool."""

import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from orchestrator.collect import Spool
from orchestrator.errors import BackendError
from orchestrator.sandbox import User
from orchestrator.wire.identity import identify
from orchestrator.wire.line import LINE_BYTES
from orchestrator.wire.link import SPOOL_NAME
from orchestrator.wire.run import EventDetail

_SHORT = Path("/tmp")  # noqa: S108 - a socket's path has 107 bytes at most; a name that somebody else took is refused
_NAME = 12


def state_prefix(instance: str) -> str:
    """How the names of all directories begin that an instance makes for its Sandboxes, in /tmp."""
    return f"perstack-{identify(instance)[:_NAME]}-"


@contextmanager
def job_directory(instance: str, job: str) -> Iterator[Path]:
    """Make the directory above a job's state directories, and remove it with all that is in it.

    Others may pass through it, since a Sandbox's user must, but not list it. Its name is the job's alone, so what an
    orchestrator left that was killed is found and removed; the caller holds the job's lock.

    Raises:
        BackendError: somebody else has made a directory of that name.
    """
    directory = _SHORT / f"{state_prefix(instance)}{identify(job)[:_NAME]}"
    _remove_own(directory)
    try:
        directory.mkdir(mode=0o711)
    except OSError as error:
        message = f"the state directory {directory} cannot be made: {error.strerror}; remove what is there"
        raise BackendError(message) from error
    directory.chmod(0o711)
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _remove_own(directory: Path) -> None:
    try:
        status = directory.lstat()
    except FileNotFoundError:
        return
    if stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid():
        shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def state_directory(above: Path, name: str, user: User, detail: EventDetail) -> Iterator[tuple[Path, Spool]]:
    """Make a Sandbox's state directory, owned by `user`, with an empty spool that is open before the Sandbox exists."""
    directory = above / name
    directory.mkdir(mode=0o700)
    spool = directory / SPOOL_NAME
    writable = os.open(spool, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    os.close(writable)
    fd = os.open(spool, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        for path in (spool, directory):
            _give(path, user)
        yield directory, Spool(fd, line_bytes=LINE_BYTES[detail])
    finally:
        os.close(fd)
        shutil.rmtree(directory, ignore_errors=True)


def _give(path: Path, user: User) -> None:
    if os.geteuid() == 0:
        os.chown(path, user.uid, user.gid, follow_symlinks=False)
