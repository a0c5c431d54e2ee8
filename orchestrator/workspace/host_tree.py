"""The user's files, read and written by descriptors: no symbolic link is followed below the workspace.

Every directory is opened part by part from the workspace's own, so no process can lead a path elsewhere.
"""

import errno
import hashlib
import os
import stat
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from orchestrator.backends.tar_reader import BLOCK
from orchestrator.disk.directory import Inode, inode_of, open_at
from orchestrator.errors import ConfigError
from orchestrator.sandbox.api import User
from orchestrator.workspace.guarded_names import is_guarded
from orchestrator.workspace.manifest import MOST_ENTRIES, MOST_LEVELS, Entry, Kind, kept_mode, parent_of

_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_NOFOLLOW | os.O_CLOEXEC
_CHUNK = 256 * 1024
_WHOLE_BYTES = 1024 * 1024
"""A file of up to this size is read before its size is written, so it may change meanwhile."""

Signature = tuple[int, int, int]
"""Distinguishes states of a file: inode number, size, time of its last change in nanoseconds."""


@dataclass(frozen=True, slots=True)
class HostTree:
    """The open directory of a workspace. `path` is for messages."""

    fd: int
    path: Path

    @contextmanager
    def directory(self, path: str) -> Iterator[int]:
        """Open a directory below it for the block; an empty path is the workspace itself.

        Raises:
            OSError: it does not exist, or a part of the path is no directory.
        """
        fd = os.open(".", _OPEN, dir_fd=self.fd)
        try:
            for name in path.split("/") if path else ():
                following = os.open(name, _OPEN, dir_fd=fd)
                os.close(fd)
                fd = following
            yield fd
        finally:
            os.close(fd)

    def walk(self) -> Iterator[tuple[str, os.stat_result]]:
        """Yield each path below it with its status, directories before what is in them, in one order.

        Raises:
            ConfigError: the tree is too large or too deep to be copied.
            OSError: a directory cannot be read.
        """
        waiting, count = [("", 0)], 0
        while waiting:
            above, level = waiting.pop()
            with self.directory(above) as fd:
                names = sorted(os.listdir(fd))  # noqa: PTH208 - of a descriptor
                for name in names:
                    path = f"{above}/{name}" if above else name
                    try:
                        status = os.stat(name, dir_fd=fd, follow_symlinks=False)
                    except FileNotFoundError:
                        continue  # it was removed meanwhile
                    count += 1
                    if count > MOST_ENTRIES or level >= MOST_LEVELS:
                        message = (
                            f"workspace {self.path} has more than {MOST_ENTRIES} files, or directories more than"
                            f" {MOST_LEVELS} deep, which is too much for a copy; use another with --workspace"
                        )
                        raise ConfigError(message)
                    if stat.S_ISDIR(status.st_mode):
                        waiting.append((path, level + 1))
                    yield path, status

    def read(self, path: str, size: int | None = None) -> Iterator[bytes]:
        """Yield the content of a regular file, at most `size` bytes.

        Raises:
            OSError: it cannot be read, or is no longer a regular file.
        """
        above, _, name = path.rpartition("/")
        with self.directory(above) as fd:
            file = os.open(name, _READ, dir_fd=fd)
        with os.fdopen(file, "rb", buffering=0) as opened:
            if not stat.S_ISREG(os.fstat(file).st_mode):
                raise OSError(errno.EINVAL, "no regular file", path)
            left = size
            while left is None or left > 0:
                data = opened.read(_CHUNK if left is None else min(_CHUNK, left))
                if not data:
                    return
                left = None if left is None else left - len(data)
                yield data

    def target(self, path: str) -> bytes:
        """Return where a symbolic link leads.

        Raises:
            OSError: it is gone, or no link.
        """
        above, _, name = path.rpartition("/")
        with self.directory(above) as fd:
            return os.readlink(os.fsencode(name), dir_fd=fd)


@contextmanager
def host_tree(path: Path, inode: Inode | None) -> Iterator[HostTree]:
    """Open a workspace's directory for the block.

    Raises:
        ConfigError: it cannot be opened, or is not the directory that was checked.
    """
    try:
        fd = open_at(path)
    except OSError as error:
        message = f"workspace {path} cannot be opened: {error.strerror}; put it back, then try again"
        raise ConfigError(message) from error
    try:
        if inode not in {None, inode_of(os.fstat(fd))}:
            message = f"workspace {path} is no longer the directory that was checked; put it back, then try again"
            raise ConfigError(message)
        yield HostTree(fd, path)
    finally:
        os.close(fd)


def kind_of(status: os.stat_result) -> Kind:
    """Return what a path names, by its status."""
    for test, kind in ((stat.S_ISREG, Kind.FILE), (stat.S_ISDIR, Kind.DIRECTORY), (stat.S_ISLNK, Kind.LINK)):
        if test(status.st_mode):
            return kind
    return Kind.OTHER


def signature_of(status: os.stat_result) -> Signature:
    """Return what distinguishes this state of a file from others."""
    return status.st_ino, status.st_size, status.st_mtime_ns


def scan(tree: HostTree, wants_digest: Callable[[str], bool]) -> tuple[dict[str, Entry], dict[str, Signature]]:
    """Return what a workspace contains now, and the signature of each path; files get a digest where it is wanted.

    A file that cannot be read has none, so that it counts as changed.

    Raises:
        ConfigError: the tree is too large or too deep.
        OSError: a directory cannot be read.
    """
    entries: dict[str, Entry] = {}
    signatures: dict[str, Signature] = {}
    for path, status in tree.walk():
        kind, digest, target = kind_of(status), "", b""
        with suppress(OSError):
            if kind is Kind.LINK:
                target = tree.target(path)
            elif kind is Kind.FILE and wants_digest(path):
                digest = _digest(tree.read(path))
        entries[path] = Entry(kind=kind, mode=status.st_mode & 0o777, size=status.st_size, digest=digest, target=target)
        signatures[path] = signature_of(status)
    return entries, signatures


def folds_names(tree: HostTree) -> bool:
    """Whether the file system takes different spellings for one name: another case, or another normalization.

    Raises:
        OSError: no file can be made in the workspace.
    """
    name = f".perstack-probe-{os.urandom(8).hex()}-\N{LATIN SMALL LETTER E WITH ACUTE}"
    os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=tree.fd))
    try:
        return any(_exists(other, tree.fd) for other in (name.upper(), name.replace("\u00e9", "e\u0301")))
    finally:
        os.unlink(name, dir_fd=tree.fd)


def packed(tree: HostTree, owner: User, manifest: dict[str, Entry]) -> Iterator[bytes]:
    """Yield a tar archive of all files but the guarded ones, and add to `manifest` what is in it.

    All belong to `owner`. Pipes, sockets and devices stay out, and so do links that lead out of the workspace by `..`:
    engines refuse such an archive, and nothing is there in a Sandbox.

    Raises:
        ConfigError: a file cannot be read, or changed while it was read; or the tree is too large or too deep.
    """
    try:
        for path, status in tree.walk():
            kind = kind_of(status)
            is_out = "/" not in path and kind is not Kind.DIRECTORY and is_guarded(path)
            if is_out or kind is Kind.OTHER or (kind is Kind.LINK and _leads_out(path, tree.target(path))):
                continue
            yield from _packed_one(tree, path, status, owner, manifest)
    except FileNotFoundError as error:
        message = f"{tree.path / str(error.filename)} was removed while the workspace was copied; try again"
        raise ConfigError(message) from error
    except OSError as error:
        message = f"workspace {tree.path} cannot be copied: {error.filename}: {error.strerror}; look at its mode"
        raise ConfigError(message) from error
    yield bytes(2 * BLOCK)


def _packed_one(
    tree: HostTree, path: str, status: os.stat_result, owner: User, manifest: dict[str, Entry]
) -> Iterator[bytes]:
    kind = kind_of(status)
    info = tarfile.TarInfo(path)
    info.uid, info.gid, info.mode, info.mtime = owner.uid, owner.gid, kept_mode(status.st_mode, kind), status.st_mtime
    entry = Entry(kind=kind, mode=info.mode)
    if kind is Kind.FILE:
        content, info.size = tree.read(path), status.st_size
        if info.size <= _WHOLE_BYTES:
            whole = b"".join(tree.read(path, _WHOLE_BYTES))
            content, info.size = iter((whole,)), len(whole)
        yield _header(info)
        digest, sent = hashlib.sha256(), 0
        for data in content:
            data = data[: info.size - sent]  # noqa: PLW2901 - it may have grown
            digest.update(data)
            sent += len(data)
            yield data
            if sent == info.size:
                break
        if sent < info.size:
            message = f"{tree.path / path} became shorter while the workspace was copied; try again"
            raise ConfigError(message)
        yield bytes(-sent % BLOCK)
        entry = entry.with_(size=sent, digest=digest.hexdigest())
    elif kind is Kind.LINK:
        target = tree.target(path)
        info.type, info.linkname = tarfile.SYMTYPE, os.fsdecode(target)
        yield _header(info)
        entry = entry.with_(target=target)
    else:
        info.type = tarfile.DIRTYPE
        yield _header(info)
    manifest[path] = entry


def _leads_out(path: str, target: bytes) -> bool:
    """Whether a link leads out of the tree by its text alone, as an engine reads it: an absolute one does not."""
    found = os.path.normpath(os.path.join(parent_of(path), os.fsdecode(target).lstrip("/")))  # noqa: PTH118 - text
    return found == ".." or found.startswith("../")


def _header(info: tarfile.TarInfo) -> bytes:
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def _digest(content: Iterator[bytes]) -> str:
    digest = hashlib.sha256()
    for data in content:
        digest.update(data)
    return digest.hexdigest()


def _exists(name: str, fd: int) -> bool:
    with suppress(FileNotFoundError):
        os.stat(name, dir_fd=fd, follow_symlinks=False)
        return True
    return False
