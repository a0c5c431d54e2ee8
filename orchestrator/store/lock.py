"""One orchestrator for each job."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from orchestrator.errors import InUseError
from orchestrator.store.files import translated

_PID_DIGITS = 32


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold the job in `directory`; the kernel lets go of it however this process ends.

    The file stays, since removing it would let a third process lock a file that a second still waits for.

    Raises:
        InUseError: another orchestrator holds it; names the job and the process.
    """
    path = directory / "lock"
    with translated(path):
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(fd, _PID_DIGITS, 0).decode("ascii", "replace").strip() or "unknown"
            message = (
                f"job {directory.name!r} is in use by another orchestrator (process {holder}); "
                "wait for it to end, or stop it"
            )
            raise InUseError(message) from error
        with translated(path):
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"{os.getpid()}\n".encode("ascii"), 0)
        yield
    finally:
        os.close(fd)
