"""State directories: private to one Sandbox, at /run/perstack inside; they hold the broker's socket and the spool."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from orchestrator.collect import Spool
from orchestrator.sandbox import User
from orchestrator.wire.line import LINE_BYTES
from orchestrator.wire.link import SPOOL_NAME
from orchestrator.wire.run import EventDetail

_SHORT = Path("/tmp")  # noqa: S108 - a socket's path has 107 bytes at most; mkdtemp makes the name and its mode safe


@contextmanager
def job_directory() -> Iterator[Path]:
    """Make the directory above a job's state directories, and remove it with all that is in it.

    Others may pass through it, since a Sandbox's user must, but not list it.
    """
    directory = Path(tempfile.mkdtemp(prefix="perstack-", dir=_SHORT))
    directory.chmod(0o711)
    try:
        yield directory
    finally:
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
