"""Replace the content of a file: all of it, or nothing.

The new content is written to a file without a name, which takes the old file's name once it is complete. Readers see
the old content or the new, and a full disk or a kill leaves the old. If that is impossible, the file is written in
place: it has several names, is a mount point, its directory is not writable, or its owner cannot be kept.
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
"""The mode bits that a changed file keeps. The kernel also drops set-user-id when a file is written to."""

_NOT_COPIED = ("security.capability", "security.ima", "security.evm")
"""Extended attributes that certify a file's content. The kernel drops them when a file is written to."""

# Errors that mean a file cannot be exchanged for another one. A lack of space is not among them.
_CANNOT_EXCHANGE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.EBUSY, errno.EXDEV)
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
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
    """Distinguishes states of a file: device and inode, its size in bytes and its times in nanoseconds."""

    device: int
    inode: int
    size: int
    modified: int
    changed: int

    @classmethod
    def of(cls, status: os.stat_result) -> "Version":
        """Create it from a file's status."""
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def create(directory: int, name: str, data: bytes, mode: int) -> None:
    """Create the file `name` in the open `directory`; it appears with all of `data`.

    Raises:
        ChangedError: another process created it in the meantime.
        OSError: it cannot be created; nothing of it is left.
    """
    with _draft(directory, mode) as draft:
        _write_all(draft.fd, data)
        try:
            draft.publish(name)
        except FileExistsError as error:
            raise ChangedError from error


def replace(directory: int, name: str, file: int, data: bytes, base: Version | None = None) -> None:
    """Replace the content of the file `name` in the open `directory` by `data`.

    `file` is that file, open for writing. With `base`, the file must still be in that state just before the exchange.

    Raises:
        ChangedError: it is no longer in the state `base`.
        TooLargeError: it can only be written in place, and is too large for that.
        OSError: it cannot be written; its content is unchanged.
    """
    try:
        _exchange(directory, name, file, data, base)
    except _CannotExchangeError:
        _check(directory, name, base)
        _overwrite(file, data)


def append(file: int, data: bytes) -> None:
    """Append `data` to `file`, which is open with O_APPEND.

    Raises:
        OSError: it cannot be written; its content is unchanged.
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
    """Cut off the part of `data` that was added to a file of `size` bytes, unless other data was added too."""
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
        OSError: EPERM if the caller lacks the permission.
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
            return  # For example a security label that every file in the directory gets.
    except OSError:
        pass
    try:
        os.setxattr(draft, name, value)
    except OSError as error:
        raise _CannotExchangeError from error


@dataclass(frozen=True, slots=True)
class _Draft:
    """A file without a name, or with a temporary one if the file system does not support that."""

    directory: int
    fd: int
    name: str | None

    def publish(self, name: str) -> None:
        """Give it a name that no file has.

        Raises:
            FileExistsError: a file has it, and the file system reports that.
        """
        if self.name is None:
            self._link(name)
        else:
            self._rename(self.name, name)

    def publish_over(self, name: str) -> None:
        """Give it the name of an existing file, which it replaces."""
        given = self.name
        if given is None:
            given = _temporary_name()
            self._link(given)
        try:
            self._rename(given, name)
        except OSError:
            os.unlink(given, dir_fd=self.directory)
            raise

    def _link(self, name: str) -> None:
        # Linux gives a name to a nameless file through its entry in /proc (open(2), O_TMPFILE).
        os.link(f"/proc/self/fd/{self.fd}", name, dst_dir_fd=self.directory, follow_symlinks=True)

    def _rename(self, old_name: str, name: str) -> None:
        os.rename(old_name, name, src_dir_fd=self.directory, dst_dir_fd=self.directory)


@contextmanager
def _draft(directory: int, mode: int) -> Iterator[_Draft]:
    """Open a file for writing in `directory`; nothing of it stays unless it is published."""
    name = None
    try:
        fd = os.open(".", os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, mode, dir_fd=directory)
    except OSError as error:
        if error.errno not in _NO_TMPFILE:
            raise
        name = _temporary_name()
        fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode, dir_fd=directory)
    try:
        yield _Draft(directory, fd, name)
    finally:
        os.close(fd)
        if name is not None:
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=directory)


def _temporary_name() -> str:
    return f".perstack-write-{secrets.token_hex(8)}"


def _overwrite(file: int, data: bytes) -> None:
    """Write in place. Space for the new content is allocated before a byte of the old content changes."""
    size = os.fstat(file).st_size
    if size > IN_PLACE_BYTES:
        raise TooLargeError
    with open(f"/proc/self/fd/{file}", "rb") as reading:  # noqa: PTH123 - a descriptor has no path
        old = reading.read()
    if len(data) > size:
        _allocate(file, size, len(data))
    try:
        _put(file, data)
    except OSError:
        _put(file, old)
        raise


def _allocate(file: int, size: int, new_size: int) -> None:
    try:
        os.posix_fallocate(file, 0, new_size)
    except OSError as error:
        os.ftruncate(file, size)
        if error.errno in _NO_SPACE:
            raise


def _put(file: int, data: bytes) -> None:
    os.lseek(file, 0, os.SEEK_SET)
    _write_all(file, data)
    os.ftruncate(file, len(data))
