"""Reading a file that somebody else may have put there: nothing that waits for ever, nothing without an end."""

import errno
import os
import stat
from pathlib import Path

HAND_WRITTEN_BYTES = 1024 * 1024
"""How large a file may be that a person writes, such as perstack.toml or .env: a hundred times what a long one has."""


def read_plain(path: Path, most: int, *, follow: bool = True) -> bytes:
    """Read a regular file of at most `most` bytes; unless `follow`, its name may be no symbolic link.

    Raises:
        OSError: it is not there, or cannot be read.
        ValueError: it is another kind of file, or larger; the text continues a sentence about it.
    """
    try:
        # Opening a device can do something already, and a socket cannot be opened at all.
        _check(path.stat(follow_symlinks=follow), most)
        # Another may have been put there since: a pipe must not make us wait.
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
        descriptor = os.open(path, flags)
    except OSError as error:
        if error.errno == errno.ELOOP and not follow:
            message = "is a symbolic link"
            raise ValueError(message) from error
        raise
    with os.fdopen(descriptor, "rb") as file:
        _check(os.fstat(descriptor), most)
        content = file.read(most + 1)
    if len(content) > most:
        raise _too_large(most)
    return content


def _check(status: os.stat_result, most: int) -> None:
    if stat.S_ISLNK(status.st_mode):
        message = "is a symbolic link"
        raise ValueError(message)
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(status.st_mode):
        message = "is not a regular file"
        raise ValueError(message)
    # Not only to save the reading: a file that grows while it is read is told by its end.
    if status.st_size > most:
        raise _too_large(most)


def _too_large(most: int) -> ValueError:
    return ValueError(f"has more than {most} bytes")
