"""Read a file that others may have put in place, without blocking and within a size limit."""

import errno
import os
import stat
from pathlib import Path

HAND_WRITTEN_BYTES = 1024 * 1024
"""The largest hand-written file, such as perstack.toml or .env: a hundred times the size of a long one."""


def read_plain(path: Path, max_bytes: int, *, follow: bool = True, dir_fd: int | None = None) -> bytes:
    """Read a regular file of at most `max_bytes`; unless `follow`, its last path component may not be a symbolic link.

    A relative path is below the open directory `dir_fd`, if given.

    Raises:
        OSError: it does not exist, or cannot be read.
        ValueError: it is not a regular file, or larger; the message is a predicate for the caller's sentence.
    """
    try:
        # Opening a device can already have side effects, and a socket cannot be opened at all.
        _check(os.stat(path, dir_fd=dir_fd, follow_symlinks=follow), max_bytes)
        # The file may have been replaced since: opening a pipe must not block.
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
        descriptor = os.open(path, flags, dir_fd=dir_fd)
    except OSError as error:
        if error.errno == errno.ELOOP and not follow:
            message = "is a symbolic link"
            raise ValueError(message) from error
        raise
    with os.fdopen(descriptor, "rb") as file:
        _check(os.fstat(descriptor), max_bytes)
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise _too_large(max_bytes)
    return content


def _check(status: os.stat_result, max_bytes: int) -> None:
    if stat.S_ISLNK(status.st_mode):
        message = "is a symbolic link"
        raise ValueError(message)
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(status.st_mode):
        message = "is not a regular file"
        raise ValueError(message)
    # This check only saves the read; a file that grows meanwhile is found by the size of its content.
    if status.st_size > max_bytes:
        raise _too_large(max_bytes)


def _too_large(max_bytes: int) -> ValueError:
    return ValueError(f"has more than {max_bytes} bytes")
