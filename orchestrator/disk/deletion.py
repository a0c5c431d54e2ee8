"""Delete what containers created.

A container's directory tree may be of any depth, contain any number of names, deny its owner all access, and be moved
during the deletion. So no recursion is used; at most three descriptors are open, whatever the depth; no path is
longer than one name; and no symbolic link is followed. The way back from a directory is its `..`, if that is still the
directory it was entered from; if the directory was moved, deletion starts again from the top.
"""

import errno
import os
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.disk.system import PASS

_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OWNER_ALL = 0o700
_NOT_EMPTY = (errno.ENOTEMPTY, errno.EEXIST)
# Some file systems skip names while others are removed from the same directory, so each is read more than once.
_PASSES = 8
_STARTS = 64


class _MovedError(Exception):
    """`..` is not the directory that was entered from."""


@dataclass(slots=True)
class _Level:
    """A directory on the way down: the name it was entered by, how often before, its inode, and what is left to do.

    `pending` are directories in it, each with how often it was entered; `stuck` means that something in it remains.
    """

    name: str
    passes: int
    identity: tuple[int, int]
    pending: list[tuple[str, int]] = field(default_factory=list)
    stuck: bool = False


def delete(path: str | Path, *, dir_fd: int | None = None) -> OSError | None:
    """Delete a file, a link, or a directory with all its content. A missing `path` is no error.

    Return the first error if something is left, else None. A relative `path` is relative to `dir_fd`, if given. Mount
    points are neither removed nor entered.
    """
    above, name = os.path.split(os.fspath(path))
    try:
        directory = os.open(above or ".", PASS | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=dir_fd)
    except FileNotFoundError:
        return None
    except OSError as error:
        return error
    try:
        for _ in range(_STARTS):
            deletion = _Deletion(directory)
            with suppress(_MovedError):
                deletion.work(name)
                return deletion.first_error
    except OSError as error:
        return error
    finally:
        os.close(directory)
    return OSError(errno.EBUSY, "another process keeps moving directories in it")


class _Deletion:
    """One attempt. `above` is the directory that contains the target."""

    def __init__(self, above: int) -> None:
        self._above = above
        self._fd = above
        self._levels = [_Level("", 0, (0, 0))]
        self.first_error: OSError | None = None

    def work(self, name: str) -> None:
        """Delete the target `name`.

        Raises:
            OSError: no descriptor was free for the way back.
            _MovedError: a directory was moved during the deletion.
        """
        self._levels[0].pending.append((name, 0))
        try:
            while True:
                level = self._levels[-1]
                if level.pending:
                    self._remove_or_enter(*level.pending.pop())
                elif len(self._levels) > 1:
                    self._leave()
                else:
                    return
        finally:
            self._switch_to(self._above)

    def _remove_or_enter(self, name: str, passes: int) -> None:
        # The kernel checks for a mount first, then whether the directory is empty.
        error = _removed(self._fd, name)
        if error is None:
            return
        if error.errno not in _NOT_EMPTY or passes >= _PASSES:
            self._keep(error)
            return
        try:
            child = _opened(self._fd, name)
        except OSError as refusal:
            self._keep(refusal)
            return
        self._switch_to(child)
        status = os.fstat(child)
        if status.st_mode & _OWNER_ALL != _OWNER_ALL:
            with suppress(OSError):
                os.fchmod(child, _OWNER_ALL)
        level = _Level(name, passes + 1, (status.st_dev, status.st_ino))
        self._levels.append(level)
        self._empty(level)

    def _empty(self, level: _Level) -> None:
        """Remove all files of the open directory; its subdirectories become pending."""
        try:
            with os.scandir(self._fd) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        level.pending.append((entry.name, 0))
                    elif (error := _removed(self._fd, entry.name, is_file=True)) is not None:
                        self._keep(error)
        except OSError as error:
            self._keep(error)

    def _leave(self) -> None:
        """Return from the open directory to the one it was entered from, where it will be removed."""
        level = self._levels.pop()
        before = self._levels[-1]
        if len(self._levels) == 1:
            self._switch_to(self._above)
        else:
            back = os.open("..", _OPEN, dir_fd=self._fd)
            self._switch_to(back)
            status = os.fstat(back)
            if (status.st_dev, status.st_ino) != before.identity:
                raise _MovedError
        if level.stuck:
            before.stuck = True
        else:
            before.pending.append((level.name, level.passes))

    def _keep(self, error: OSError) -> None:
        self._levels[-1].stuck = True
        self.first_error = self.first_error or error

    def _switch_to(self, fd: int) -> None:
        if self._fd not in {self._above, fd}:
            os.close(self._fd)
        self._fd = fd


def _removed(directory: int, name: str, *, is_file: bool = False) -> OSError | None:
    """Remove a name; return the error if it still exists."""
    try:
        if not is_file:
            try:
                os.rmdir(name, dir_fd=directory)
            except NotADirectoryError:
                is_file = True
        if is_file:
            os.unlink(name, dir_fd=directory)
    except FileNotFoundError:
        return None
    except OSError as error:
        return error
    return None


def _opened(directory: int, name: str) -> int:
    try:
        return os.open(name, _OPEN, dir_fd=directory)
    except PermissionError:
        _allow_owner(directory, name)
        return os.open(name, _OPEN, dir_fd=directory)


def _allow_owner(above: int, name: str) -> None:
    """Give the owner of a directory all rights to it; a link there is not followed."""
    if sys.platform != "linux":
        os.chmod(name, _OWNER_ALL, dir_fd=above, follow_symlinks=False)
        return
    # The kernel has no such chmod before Linux 6.6. Opening with O_PATH needs no read permission, and a chmod through
    # that descriptor affects this inode only, if the user owns it.
    directory = os.open(name, PASS | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=above)
    try:
        os.chmod(f"/proc/self/fd/{directory}", _OWNER_ALL)  # noqa: PTH101 - no path
    finally:
        os.close(directory)
