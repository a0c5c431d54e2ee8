"""Find and create directories by descriptor, where others may rename and link. They can be created for another user."""

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path

from orchestrator.disk.system import PASS

Inode = tuple[int, int]
"""Identifies a directory regardless of its path: device and inode number."""

_OPEN_PATH = PASS | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def inode_of(status: os.stat_result) -> Inode:
    """Return the device and inode number in `status`."""
    return status.st_dev, status.st_ino


def inode_at(path: Path) -> Inode:
    """Return the inode of the directory at an absolute path. Symbolic links in the path are not followed.

    Raises:
        OSError: it does not exist; ELOOP or ENOTDIR if the path contains a link.
    """
    directory = open_at(path)
    try:
        return inode_of(os.fstat(directory))
    finally:
        os.close(directory)


def make_at(path: Path, owner: tuple[int, int], mode: int) -> Inode:
    """Create a directory at an absolute path and return its inode. Symbolic links in the path are not followed.

    If the caller is root, the user and group `owner` get it; missing parents are created for the caller.

    Raises:
        FileExistsError: the path exists.
        OSError: it cannot be created; ELOOP or ENOTDIR if the path contains a link.
    """
    above = open_at(path.parent, make=True)
    try:
        return make_in(above, path.name, owner, mode)
    finally:
        os.close(above)


def make_below(above: Path, name: str, owner: tuple[int, int], mode: int) -> Inode:
    """Create a directory in an existing one, whose path may contain links.

    Raises:
        FileExistsError: the name exists.
        OSError: it cannot be created.
    """
    directory = os.open(above, PASS | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return make_in(directory, name, owner, mode)
    finally:
        os.close(directory)


def make_in(above: int, name: str, owner: tuple[int, int], mode: int) -> Inode:
    """Create a directory in an open one.

    Raises:
        FileExistsError: the name exists.
        OSError: it cannot be created, or was replaced in the meantime.
    """
    os.mkdir(name, mode | stat.S_ISVTX, dir_fd=above)
    directory = os.open(name, _OPEN, dir_fd=above)
    try:
        status = os.fstat(directory)
        if os.geteuid() == 0:
            # A process that may rename in the parent could have replaced the directory by now. Change the owner only of
            # what was certainly created here: empty, owned by root, with the sticky bit as the mark of an unfinished
            # one.
            if status.st_uid != 0 or not status.st_mode & stat.S_ISVTX or os.listdir(directory):  # noqa: PTH208 - of a descriptor
                raise OSError(errno.EBUSY, "replaced while it was created", name)
            os.fchown(directory, *owner)
        os.fchmod(directory, stat.S_IMODE(status.st_mode) & ~stat.S_ISVTX)
    finally:
        os.close(directory)
    return inode_of(status)


def open_at(path: Path, *, make: bool = False) -> int:
    """Open a directory at an absolute path name by name, so that no link is followed; `make` creates missing ones.

    The descriptor is opened with `PASS`; the caller closes it.

    Raises:
        OSError: it does not exist; ELOOP or ENOTDIR if the path contains a link.
    """
    directory = os.open("/", _OPEN_PATH)
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
            return os.open(name, _OPEN_PATH, dir_fd=directory)
        with suppress(FileExistsError):
            os.mkdir(name, 0o755, dir_fd=directory)
    return os.open(name, _OPEN_PATH, dir_fd=directory)


def unwritable_remedy(volume: Path) -> str:
    """Return the remedy for a volume in which nothing can be created."""
    return (
        f"user {os.geteuid()}, who runs this command, must own the root of the volume at {volume}: use a StorageClass"
        f" that honors fsGroup, or run `chown {os.geteuid()} {volume}` once as root"
    )
