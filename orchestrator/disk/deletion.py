"""Deleting what containers made.

A tree of theirs may be of any depth, hold any number of names, forbid its owner everything, and be moved about while it
is deleted. So there is no recursion; at most three descriptors are open, whatever the depth; no path is longer than one
name; and no symbolic link is followed. The way back from a directory is its `..`, if that still is the one that it was
entered from: where somebody has moved it, deletion begins again from the top.
"""

import errno
import os
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LOOK = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OURS = 0o700
_NOT_EMPTY = (errno.ENOTEMPTY, errno.EEXIST)
# Some file systems pass over names while others are removed from the same directory, so one is looked at again.
_PASSES = 8
_STARTS = 64


class _MovedError(Exception):
    """The way back leads elsewhere."""


@dataclass(slots=True)
class _Level:
    """A directory on the way down: under which name it was entered and how often before, which it is, what is to do.

    `pending` are directories in it, each with how often it was entered; `stuck` says that something in it stays.
    """

    name: str
    passes: int
    identity: tuple[int, int]
    pending: list[tuple[str, int]] = field(default_factory=list)
    stuck: bool = False


def delete(path: str | Path, *, dir_fd: int | None = None) -> OSError | None:
    """Delete a file, a link, or a directory with all that is in it; what is not there needs no deletion.

    Give the first trouble where something is left, None where nothing is. A relative `path` is below `dir_fd`, if there
    is one. What a file system is mounted at is neither removed nor entered.
    """
    above, name = os.path.split(os.fspath(path))
    try:
        directory = os.open(above or ".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=dir_fd)
    except FileNotFoundError:
        return None
    except OSError as error:
        return error
    try:
        for _ in range(_STARTS):
            deletion = _Deletion(directory)
            with suppress(_MovedError):
                deletion.work(name)
                return deletion.trouble
    except OSError as error:
        return error
    finally:
        os.close(directory)
    return OSError(errno.EBUSY, "somebody else moves directories in it meanwhile")


class _Deletion:
    """One attempt. `above` is the directory that holds what is to be deleted."""

    def __init__(self, above: int) -> None:
        self._above = above
        self._fd = above
        self._levels = [_Level("", 0, (0, 0))]
        self.trouble: OSError | None = None

    def work(self, name: str) -> None:
        """Delete what has this name.

        Raises:
            OSError: there are too few descriptors to find back.
            _MovedError: a directory was moved meanwhile.
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
            self._go_to(self._above)

    def _remove_or_enter(self, name: str, passes: int) -> None:
        # The kernel says first whether something is mounted there, then whether it is empty.
        error = _removed(self._fd, name)
        if error is None:
            return
        if error.errno not in _NOT_EMPTY or passes >= _PASSES:
            self._keep(error)
            return
        try:
            child = _opened(self._fd, name)
        except OSError as why:
            self._keep(why)
            return
        self._go_to(child)
        status = os.fstat(child)
        if status.st_mode & _OURS != _OURS:
            with suppress(OSError):
                os.fchmod(child, _OURS)
        level = _Level(name, passes + 1, (status.st_dev, status.st_ino))
        self._levels.append(level)
        self._empty(level)

    def _empty(self, level: _Level) -> None:
        """Remove all files of the directory that is open; its directories are pending then."""
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
        """Go back to where the directory that is open was entered from, and remove it there."""
        level = self._levels.pop()
        before = self._levels[-1]
        if len(self._levels) == 1:
            self._go_to(self._above)
        else:
            back = os.open("..", _OPEN, dir_fd=self._fd)
            self._go_to(back)
            status = os.fstat(back)
            if (status.st_dev, status.st_ino) != before.identity:
                raise _MovedError
        if level.stuck:
            before.stuck = True
        else:
            before.pending.append((level.name, level.passes))

    def _keep(self, error: OSError) -> None:
        self._levels[-1].stuck = True
        self.trouble = self.trouble or error

    def _go_to(self, fd: int) -> None:
        if self._fd not in {self._above, fd}:
            os.close(self._fd)
        self._fd = fd


def _removed(directory: int, name: str, *, is_file: bool = False) -> OSError | None:
    """Remove a name; give the error where it is still there."""
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
        # To be looked at takes no right to read it; by the descriptor its owner may change it, and nothing else.
        looked_at = os.open(name, _LOOK, dir_fd=directory)
        try:
            os.chmod(f"/proc/self/fd/{looked_at}", _OURS)  # noqa: PTH101 - no path
        finally:
            os.close(looked_at)
        return os.open(name, _OPEN, dir_fd=directory)
