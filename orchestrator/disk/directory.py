"""Directories in places where somebody else may rename and link: found, and made for another user, by descriptor."""

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path

Inode = tuple[int, int]
"""Which directory it is, whatever it is called: device and number on it."""

_LOOK = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def inode_of(status: os.stat_result) -> Inode:
    """Say which one it is."""
    return status.st_dev, status.st_ino


def inode_at(path: Path) -> Inode:
    """Say which directory is at an absolute path, on which no symbolic link is followed.

    Raises:
        OSError: there is none; ELOOP or ENOTDIR where a link is on the way.
    """
    directory = open_at(path)
    try:
        return inode_of(os.fstat(directory))
    finally:
        os.close(directory)


def make_at(path: Path, owner: tuple[int, int], mode: int) -> Inode:
    """Make a directory at an absolute path, on which no symbolic link is followed; say which it is.

    Where the caller is root it is given to the user and group `owner`; those above it are made for the caller.

    Raises:
        FileExistsError: something is there.
        OSError: it cannot be made; ELOOP or ENOTDIR where a link is on the way.
    """
    above = open_at(path.parent, make=True)
    try:
        return make_in(above, path.name, owner, mode)
    finally:
        os.close(above)


def make_below(above: Path, name: str, owner: tuple[int, int], mode: int) -> Inode:
    """Do the same in a directory that is there, wherever its path leads.

    Raises:
        FileExistsError: something is there.
        OSError: it cannot be made.
    """
    directory = os.open(above, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return make_in(directory, name, owner, mode)
    finally:
        os.close(directory)


def make_in(above: int, name: str, owner: tuple[int, int], mode: int) -> Inode:
    """Do the same in an open directory.

    Raises:
        FileExistsError: something is there.
        OSError: it cannot be made, or was replaced meanwhile.
    """
    os.mkdir(name, mode | stat.S_ISVTX, dir_fd=above)
    directory = os.open(name, _OPEN, dir_fd=above)
    try:
        status = os.fstat(directory)
        if os.geteuid() == 0:
            # Whoever may rename in the directory above could have put another one there by now. None is given away
            # but what certainly was made here: an empty one of root's with the mark of one that is being made.
            if status.st_uid != 0 or not status.st_mode & stat.S_ISVTX or os.listdir(directory):  # noqa: PTH208 - of a descriptor
                raise OSError(errno.EBUSY, "somebody replaced it while it was made", name)
            os.fchown(directory, *owner)
        os.fchmod(directory, stat.S_IMODE(status.st_mode) & ~stat.S_ISVTX)
    finally:
        os.close(directory)
    return inode_of(status)


def open_at(path: Path, *, make: bool = False) -> int:
    """Open a directory at an absolute path name by name, so that no link is followed; `make` those that are missing.

    It is opened to look at and to go on from; the caller closes it.

    Raises:
        OSError: there is none; ELOOP or ENOTDIR where a link is on the way.
    """
    directory = os.open("/", _LOOK)
    for name in path.parts[1:]:
        try:
            following = _entered(directory, name, make=make)
        finally:
            os.close(directory)
        directory = following
    return directory


def _entered(directory: int, name: str, *, make: bool) -> int:
    if make:
        with suppress(FileNotFoundError):
            return os.open(name, _LOOK, dir_fd=directory)
        with suppress(FileExistsError):
            os.mkdir(name, 0o755, dir_fd=directory)
    return os.open(name, _LOOK, dir_fd=directory)
