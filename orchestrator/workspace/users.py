"""Directories of users who share a machine: one for each user, never reached by another user's id.

    <root>/<readable part>-<digest of the whole id>/user.json     the user's id, checked on every use
    <root>/<...>/workspace/                                       below a root of workspaces: what is mounted
    <root>/<...>/jobs/ ...                                        below a store: the user's own store

No id is shortened or normalized into another user's name: the digest is of the whole id, as given. Below the root
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

from orchestrator.disk.directory import make_in
from orchestrator.disk.whole_file import write_atomically
from orchestrator.errors import ConfigError
from orchestrator.sandbox.api import User

_RECORD = "user.json"
_WORKSPACE = "workspace"
_USERS = "users"
_READABLE = 24
_DIGEST = 32
_RECORD_BYTES = 1024 * 1024


def directory_name(user_id: str) -> str:
    """Return the name of a user's directory: lower-case letters, digits and hyphens, valid on any file system.

    Two ids share one only if their digests of 128 bits are equal, and then the second is refused.
    """
    readable = "".join(char if char.isascii() and char.isalnum() else "-" for char in user_id.lower())
    digest = hashlib.sha256(user_id.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGEST]
    return f"{readable[:_READABLE].strip('-') or 'user'}-{digest}"


def store_of(storage: Path, user_id: str | None) -> Path:
    """Return a user's store below `storage`, missing before the user's first job; without a user, `storage` itself.

    Raises:
        ConfigError: the id is empty, or the directory is not this user's.
    """
    if user_id is None:
        return storage
    above, name = storage / _USERS, _checked(user_id)
    if os.path.lexists(above / name):
        with _open_user_directory(above, user_id):
            pass
    return above / name


def make_store(storage: Path, user_id: str) -> Path:
    """Return a user's store below `storage`; make it if it is missing.

    Raises:
        ConfigError: the id is empty, or the directory is not this user's.
    """
    _checked(user_id)
    above = storage / _USERS
    try:
        above.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        message = f"the users' directory {above} cannot be made: {error.strerror}; name another --storage"
        raise ConfigError(message) from error
    with _open_user_directory(above, user_id, make=True):
        return above / directory_name(user_id)


def make_workspace(root: Path, user_id: str, owner: User) -> Path:
    """Return a user's workspace below `root`; make it for `owner` if it is missing.

    Raises:
        ConfigError: the id is empty, no such root exists, or the directory is not this user's.
    """
    _checked(user_id)
    with _open_user_directory(root, user_id, make=True) as directory:
        path = root / directory_name(user_id) / _WORKSPACE
        with _explain_os_errors(path):
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
def _open_user_directory(root: Path, user_id: str, *, make: bool = False) -> Iterator[int]:
    """Open the directory of a user and check that it is theirs."""
    name = directory_name(user_id)
    path = root / name
    with _explain_os_errors(path):
        above = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if make:
                with suppress(FileExistsError):
                    os.mkdir(name, 0o700, dir_fd=above)
            directory = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=above)
        finally:
            os.close(above)
    try:
        with _explain_os_errors(path):
            _check_ours(path, os.fstat(directory))
            known = _read(directory)
            if known is None and not os.listdir(directory):  # noqa: PTH208 - of a descriptor
                _write(directory, user_id)
                known = user_id
        if known != user_id:
            whose = "does not name its user" if known is None else f"is that of user {known!r}"
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
    """Read the user of the directory; None if it names none."""
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
    # ASCII, so that an id that is not valid text can be written and read again.
    content = json.dumps({"user": user_id}).encode("ascii")
    write_atomically(Path(_RECORD), content, synced=True, dir_fd=directory)


@contextmanager
def _explain_os_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            message = f"{path} is a symbolic link or not a directory, and is not used; remove it"
        elif error.errno == errno.ENOENT:
            message = f"no directory {path.parent} exists for the users' directories; make it, or name another"
        else:
            message = f"the directory {path} of a user cannot be used: {error.strerror}; check its owner and mode"
        raise ConfigError(message) from error
