"""Locks on files between processes: the kernel frees them however their holder ends."""

import errno
import fcntl
import os
from contextlib import ExitStack
from pathlib import Path


def lock_file(path: Path, *, make: bool = True) -> int:
    """Take the lock of the file at `path` without waiting, and return its descriptor; closing that frees the lock.

    A missing file is made, for this user alone, unless `make` is false. The path may not end in a symbolic link. Only
    the holder of a lock may remove its file.

    Raises:
        BlockingIOError: another process has it.
        FileNotFoundError: no file or no directory exists, or the last holder removed or replaced the file meanwhile.
        OSError: the file cannot be opened or locked.
    """
    lock = os.open(path, os.O_RDWR | (os.O_CREAT if make else 0) | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with ExitStack() as on_error:
        on_error.callback(os.close, lock)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.path.samestat(os.fstat(lock), path.lstat()):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        on_error.pop_all()
    return lock
