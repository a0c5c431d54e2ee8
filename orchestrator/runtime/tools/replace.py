"""Replacing what a file holds: all of it, or nothing.

The new content is written into a file without a name, which takes the old file's name once it is complete. Readers see
the old content or the new, and a full disk or a kill leaves the old. Where that cannot be done, the file is written in
place: it has several names, it is a mount point, its directory is not writable, or its owner cannot be kept.
"""

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

IN_PLACE_BYTES = 64 * 1024 * 1024
"""The largest file that is written in place: its old content is held in memory until the new one is written."""

_ORDINARY_MODE = 0o777
"""The bits of a mode that a changed file keeps. The kernel, too, drops set-user-id when a file is written to."""

_NOT_COPIED = ("security.capability", "security.ima", "security.evm")
"""Extended attributes that vouch for a file's content. The kernel drops them when a file is written to."""

# What the kernel says where a file cannot be exchanged for another one. A lack of space is not among them.
_CANNOT_EXCHANGE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.EBUSY, errno.EXDEV)
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NO_TMPFILE = (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT)
_NO_ATTRIBUTES = (errno.EOPNOTSUPP, errno.ENOSYS)


class ChangedError(Exception):
    """Another process has changed the file since it was opened."""


class TooLargeError(Exception):
    """A file that can only be written in place is larger than IN_PLACE_BYTES."""


class _CannotExchangeError(Exception):
    """The file must be written in place."""


@dataclass(frozen=True, slots=True)
class Version:
    """What tells one state of a file from the next: the file itself, its size and its times in nanoseconds."""

    device: int
    inode: int
    size: int
    modified: int
    changed: int

    @classmethod
    def of(cls, status: os.stat_result) -> "Version":
        """Take it from a file's status."""
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def create(directory: int, name: str, data: bytes, mode: int) -> None:
    """Make the file `name` in the open `directory`; it appears with all of `data`.

    Raises:
        ChangedError: another process has made it meanwhile.
        OSError: it cannot be made; nothing of it is left.
    """
    with _draft(directory, mode) as draft:
        _write_all(draft.fd, data)
        try:
            draft.publish(name)
        except FileExistsError as error:
            raise ChangedError from error


def replace(directory: int, name: str, file: int, data: bytes, base: Version | None = None) -> None:
    """Have the file `name` in the open `directory` hold `data` and nothing else.

    `file` is that file, open for writing. With `base`, the file must still be in that state just before the exchange.

    Raises:
        ChangedError: it is not in the state `base` any more.
        TooLargeError: it can only be written in place, and is too large for that.
        OSError: it cannot be written; it holds what it held before.
    """
    try:
        _exchange(directory, name, file, data, base)
    except _CannotExchangeError:
        _check(directory, name, base)
        _overwrite(file, data)


def append(file: int, data: bytes) -> None:
    """Add `data` at the end of `file`, which is open with O_APPEND.

    Raises:
        OSError: it cannot be written; it holds what it held before.
    """
    size = os.fstat(file).st_size
    try:
        _write_all(file, data)
    except OSError:
        take_back(file, size, data)
        raise


def _write_all(file: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(file, rest) :]


def take_back(file: int, size: int, data: bytes) -> None:
    """Cut off the part of `data` that was added to a file of `size` bytes, unless something else was added too."""
    with suppress(OSError):
        added = os.fstat(file).st_size - size
        if 0 < added <= len(data):
            with open(f"/proc/self/fd/{file}", "rb") as reading:  # noqa: PTH123 - a descriptor has no path
                reading.seek(size)
                if reading.read(added + 1) == data[:added]:
                    os.ftruncate(file, size)


def _exchange(directory: int, name: str, file: int, data: bytes, base: Version | None) -> None:
    status = os.fstat(file)
    if status.st_nlink > 1:
        raise _CannotExchangeError
    try:
        with _draft(directory, 0o600) as draft:
            _copy_attributes(file, status, draft.fd)
            _write_all(draft.fd, data)
            _check(directory, name, base)
            draft.publish_over(name)
    except OSError as error:
        if error.errno in _CANNOT_EXCHANGE:
            raise _CannotExchangeError from error
        raise


def _check(directory: int, name: str, base: Version | None) -> None:
    if base is None:
        return
    try:
        now = Version.of(os.stat(name, dir_fd=directory, follow_symlinks=False))
    except FileNotFoundError as error:
        raise ChangedError from error
    if now != base:
        raise ChangedError


def _copy_attributes(file: int, status: os.stat_result, draft: int) -> None:
    """Give a draft the owner, mode and extended attributes of `file`, access control lists among them.

    Raises:
        OSError: EPERM where the caller may not.
    """
    fresh = os.fstat(draft)
    if (fresh.st_uid, fresh.st_gid) != (status.st_uid, status.st_gid):
        os.fchown(draft, status.st_uid, status.st_gid)
    os.fchmod(draft, stat.S_IMODE(status.st_mode) & _ORDINARY_MODE)
    try:
        names = os.listxattr(file)
    except OSError as error:
        if error.errno in _NO_ATTRIBUTES:
            return
        raise
    for attribute in names:
        if attribute not in _NOT_COPIED:
            _copy_attribute(file, draft, attribute)


def _copy_attribute(file: int, draft: int, name: str) -> None:
    value = os.getxattr(file, name)
    try:
        if os.getxattr(draft, name) == value:
            return  # Such as a security label that the directory gives to every file in it.
    except OSError:
        pass
    try:
        os.setxattr(draft, name, value)
    except OSError as error:
        raise _CannotExchangeError from error


@dataclass(frozen=True, slots=True)
class _Draft:
    """A file that has no name yet, or one of its own where a file system cannot do without."""

    directory: int
    fd: int
    name: str | None

    def publish(self, name: str) -> None:
        """Give it a name that no file bears.

        Raises:
            FileExistsError: one does, and the file system can tell.
        """
        if self.name is None:
            self._link(name)
        else:
            self._rename(self.name, name)

    def publish_over(self, name: str) -> None:
        """Give it the name of a file, whose content is then this one's."""
        given = self.name
        if given is None:
            given = _name_of_its_own()
            self._link(given)
        try:
            self._rename(given, name)
        except OSError:
            os.unlink(given, dir_fd=self.directory)
            raise

    def _link(self, name: str) -> None:
        # Linux gives a name to a file without one by its entry in /proc (open(2), O_TMPFILE).
        os.link(f"/proc/self/fd/{self.fd}", name, dst_dir_fd=self.directory, follow_symlinks=True)

    def _rename(self, given: str, name: str) -> None:
        os.rename(given, name, src_dir_fd=self.directory, dst_dir_fd=self.directory)


@contextmanager
def _draft(directory: int, mode: int) -> Iterator[_Draft]:
    """Open a file to be written in `directory`; nothing of it stays unless it is published."""
    name = None
    try:
        fd = os.open(".", os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, mode, dir_fd=directory)
    except OSError as error:
        if error.errno not in _NO_TMPFILE:
            raise
        name = _name_of_its_own()
        fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode, dir_fd=directory)
    try:
        yield _Draft(directory, fd, name)
    finally:
        os.close(fd)
        if name is not None:
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=directory)


def _name_of_its_own() -> str:
    return f".perstack-write-{secrets.token_hex(8)}"


def _overwrite(file: int, data: bytes) -> None:
    """Write in place. Room for the new content is taken before a byte of the old one is touched."""
    size = os.fstat(file).st_size
    if size > IN_PLACE_BYTES:
        raise TooLargeError
    with open(f"/proc/self/fd/{file}", "rb") as reading:  # noqa: PTH123 - a descriptor has no path
        old = reading.read()
    if len(data) > size:
        _take_room(file, size, len(data))
    try:
        _put(file, data)
    except OSError:
        _put(file, old)
        raise


def _take_room(file: int, size: int, wanted: int) -> None:
    try:
        os.posix_fallocate(file, 0, wanted)
    except OSError as error:
        os.ftruncate(file, size)
        if error.errno in _NO_ROOM:
            raise


def _put(file: int, data: bytes) -> None:
    os.lseek(file, 0, os.SEEK_SET)
    _write_all(file, data)
    os.ftruncate(file, len(data))
