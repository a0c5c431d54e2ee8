"""Directories of users who share a machine: one for each, which nobody else's name leads to.

    <root>/<readable part>-<digest of the whole id>/user.json     whose it is, checked on every use
    <root>/<...>/workspace/                                       below a root of workspaces: what is mounted
    <root>/<...>/jobs/ ...                                        below a store: the user's own store

No name is ever shortened or cleaned into somebody else's: the digest is of all of it, as it was written. Below the root
no symbolic link is followed.
"""

import errno
import hashlib
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from orchestrator.disk.directory import make_in
from orchestrator.errors import ConfigError
from orchestrator.sandbox import User

_RECORD = "user.json"
_WORKSPACE = "workspace"
_USERS = "users"
_READABLE = 24
_DIGEST = 32
_RECORD_BYTES = 1024 * 1024


def directory_name(user_id: str) -> str:
    """Name the directory of a user: lower-case letters, digits and hyphens, as any file system takes them.

    Two ids share one only if their digests of 128 bits are equal, and then the second is refused.
    """
    readable = "".join(char if char.isascii() and char.isalnum() else "-" for char in user_id.lower())
    digest = hashlib.sha256(user_id.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGEST]
    return f"{readable[:_READABLE].strip('-') or 'user'}-{digest}"


def store_of(storage: Path, user_id: str | None) -> Path:
    """Give the store of a user below `storage`, which is not there before the user's first job; nobody's is all of it.

    Raises:
        ConfigError: the id is empty, or what is there is not this user's.
    """
    if user_id is None:
        return storage
    above, name = storage / _USERS, _checked(user_id)
    if os.path.lexists(above / name):
        with _opened(above, user_id):
            pass
    return above / name


def make_store(storage: Path, user_id: str) -> Path:
    """Give the store of a user below `storage`, made if it is not there.

    Raises:
        ConfigError: the id is empty, or what is there is not this user's.
    """
    _checked(user_id)
    above = storage / _USERS
    try:
        above.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        message = f"the users' directory {above} cannot be made: {error.strerror}; name another --storage"
        raise ConfigError(message) from error
    with _opened(above, user_id, make=True):
        return above / directory_name(user_id)


def make_workspace(root: Path, user_id: str, owner: User) -> Path:
    """Give the workspace of a user below `root`, made for `owner` if it is not there.

    Raises:
        ConfigError: the id is empty, there is no such root, or what is there is not this user's.
    """
    _checked(user_id)
    with _opened(root, user_id, make=True) as directory:
        path = root / directory_name(user_id) / _WORKSPACE
        with _explained(path):
            with suppress(FileExistsError):
                make_in(directory, _WORKSPACE, (owner.uid, owner.gid), 0o700)
            os.close(os.open(_WORKSPACE, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=directory))
    return path


def _checked(user_id: str) -> str:
    if not user_id:
        message = "--user '' is not usable: give the id of a user"
        raise ConfigError(message)
    return directory_name(user_id)


@contextmanager
def _opened(root: Path, user_id: str, *, make: bool = False) -> Iterator[int]:
    """Open the directory of a user and see that it is theirs."""
    name = directory_name(user_id)
    path = root / name
    with _explained(path):
        above = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if make:
                with suppress(FileExistsError):
                    os.mkdir(name, 0o700, dir_fd=above)
            directory = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=above)
        finally:
            os.close(above)
    try:
        with _explained(path):
            _check_ours(path, os.fstat(directory))
            known = _read(directory)
            if known is None and not os.listdir(directory):  # noqa: PTH208 - of a descriptor
                _write(directory, user_id)
                known = user_id
        if known != user_id:
            whose = "does not say whose it is" if known is None else f"is that of user {known!r}"
            message = f"the directory {path} {whose}; look at {path / _RECORD}"
            raise ConfigError(message)
        yield directory
    finally:
        os.close(directory)


def _check_ours(path: Path, status: os.stat_result) -> None:
    if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o077:
        message = f"the directory {path} belongs to or is open to others; make it yours alone (chmod 700), or remove it"
        raise ConfigError(message)


def _read(directory: int) -> str | None:
    """Read whose directory it is; None where it does not say."""
    try:
        fd = os.open(_RECORD, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    except FileNotFoundError:
        return None
    with os.fdopen(fd, "rb") as file:
        try:
            known = json.loads(file.read(_RECORD_BYTES))["user"]
        except (ValueError, KeyError, TypeError):
            return None
    return known if isinstance(known, str) else None


def _write(directory: int, user_id: str) -> None:
    fresh = f".{_RECORD}.{uuid4().hex}"
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=directory)
    with os.fdopen(fd, "w", encoding="ascii") as file:
        # ASCII, so that an id that is no text can be written and read again.
        json.dump({"user": user_id}, file)
        file.flush()
        os.fsync(fd)
    os.rename(fresh, _RECORD, src_dir_fd=directory, dst_dir_fd=directory)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            message = f"{path} is a symbolic link or no directory, and neither is followed; remove it"
        elif error.errno == errno.ENOENT:
            message = f"there is no directory {path.parent} for users' own; make it, or name another"
        else:
            message = f"the directory {path} of a user cannot be used: {error.strerror}; check its owner and mode"
        raise ConfigError(message) from error
