"""Files of the store: private, never reached through a link, and written completely or not at all."""

import errno
import os
import re
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from msgspec.json import Decoder

from orchestrator.disk.locks import lock_file
from orchestrator.disk.whole_file import sync_file, write_atomically
from orchestrator.errors import DiskError, InUseError, StoreError, WireError
from orchestrator.wire.frozen import Frozen, read_json
from orchestrator.wire.identity import identify

V = TypeVar("V", bound=Frozen)

REMEDY = "restore it from a backup, or start a new job"
"""The remedy for a file with wrong content."""

_PLAIN = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")


def path_part(text: str) -> str:
    """Turn an id into one path component: unchanged if plain, otherwise hashed, since containers may choose it."""
    return text if _PLAIN.fullmatch(text) else identify("path", text)


@contextmanager
def translate_os_errors(path: Path) -> Iterator[None]:
    """Translate errors of the disk into errors that name the file and the remedy.

    Raises:
        DiskError: the disk refuses.
        FileExistsError: not translated, for callers that handle it.
        FileNotFoundError: not translated, likewise.
    """
    try:
        yield
    except (FileExistsError, FileNotFoundError):
        raise
    except OSError as error:
        match error.errno:
            case errno.ENOSPC | errno.EDQUOT:
                message = f"no space left to write {path}; free some, or choose another store with --storage"
            case errno.ELOOP:
                message = f"{path} is a symbolic link, which the store does not follow; remove it"
            case _:
                message = f"{path} cannot be used: {error.strerror}; check its owner and mode, or use another --storage"
        raise DiskError(message) from error


def is_real_directory(path: Path) -> bool:
    """Whether `path` is a directory and not a link to one.

    Raises:
        StoreError: it is something else.
    """
    try:
        with translate_os_errors(path):
            mode = path.lstat().st_mode
    except FileNotFoundError:
        return False
    if not stat.S_ISDIR(mode):
        message = f"{path} must be a directory, but is not; remove it"
        raise StoreError(message)
    return True


def make_directory(path: Path, *, exist_ok: bool = False) -> None:
    """Create a directory that only this user can access, with missing parents.

    Raises:
        StoreError: the disk refuses, or the path is not a directory.
        FileExistsError: the path exists, and `exist_ok` is false.
    """
    with translate_os_errors(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.mkdir(mode=0o700)
        except FileExistsError:
            if not exist_ok:
                raise
    is_real_directory(path)


def write_file(path: Path, content: bytes, *, synced: bool = True) -> None:
    """Replace the content of `path` atomically: after a crash the file has the old content or the new.

    If `synced`, the content survives a power loss once this returns; otherwise the caller uses `sync`.

    Raises:
        DiskError: the disk refuses; the old content remains.
    """
    with translate_os_errors(path):
        write_atomically(path, content, synced=synced)


def sync(path: Path) -> None:
    """Return once the file at `path` would survive a power loss; a missing file is no error.

    Raises:
        DiskError: the disk refuses.
    """
    with suppress(FileNotFoundError), translate_os_errors(path):
        sync_file(path)


def write_below(top: Path, path: Path, content: bytes, *, synced: bool) -> None:
    """Write a whole file, and create the directories between `top` and the file.

    Raises:
        DiskError: the disk refuses.
        StoreError: a component of the path is not a directory.
    """
    below = path.parent.relative_to(top)
    for above in reversed((below, *below.parents)):
        make_directory(top / above, exist_ok=True)
    write_file(path, content, synced=synced)


def read_value(path: Path, shape: type[V]) -> V:
    """Read the value in a file.

    Raises:
        StoreError: the file is missing or damaged; the message names it.
    """
    try:
        with translate_os_errors(path), os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
            return read_json(Decoder(shape), file.read())
    except FileNotFoundError as error:
        message = f"{path} is missing, so the job's records are incomplete; {REMEDY}"
        raise StoreError(message) from error
    except WireError as error:
        message = f"{path} is damaged: {error}; {REMEDY}"
        raise StoreError(message) from error


def readable(
    directory: Path, shape: type[V], pattern: str = "*.json", damaged: Callable[[StoreError], None] = lambda _: None
) -> Iterator[V]:
    """Yield the values in the matching files, by name; for each unreadable file, `damaged` gets the reason."""
    for path in sorted(directory.glob(pattern)):
        try:
            yield read_value(path, shape)
        except StoreError as error:
            damaged(error)


def load_or_create_secret(path: Path, size: int) -> bytes:
    """Read the secret in a file; if the file is missing, create it with a secret of `size` bytes.

    Raises:
        DiskError: the disk refuses.
    """
    try:
        with translate_os_errors(path):
            return path.read_bytes()
    except FileNotFoundError:
        write_file(path, key := secrets.token_bytes(size))
        return key


_PID_DIGITS = 32


@contextmanager
def lock_directory(directory: Path) -> Iterator[None]:
    """Hold the lock of the job in `directory`. The kernel releases it when this process ends, for any reason.

    The file is never removed: a third process could then lock a new file while a second still waits for the old one.

    Raises:
        InUseError: another orchestrator holds the lock; the message names the job and the process.
    """
    path = directory / "lock"
    with translate_os_errors(path):
        try:
            fd = lock_file(path)
        except BlockingIOError as error:
            message = (
                f"job {directory.name!r} is in use by another orchestrator (process {_holder(path)}); "
                "wait for it to end, or stop it"
            )
            raise InUseError(message) from error
    try:
        with translate_os_errors(path):
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"{os.getpid()}\n".encode("ascii"), 0)
        yield
    finally:
        os.close(fd)


def _holder(path: Path) -> str:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        return os.read(fd, _PID_DIGITS).decode("ascii", "replace").strip() or "unknown"
    finally:
        os.close(fd)
