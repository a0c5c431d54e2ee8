"""Files of the store: private, never reached through a link, and replaced whole or not at all."""

import errno
import os
import re
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar
from uuid import uuid4

from msgspec.json import Decoder

from orchestrator.errors import DiskError, StoreError, WireError
from orchestrator.wire.frozen import Frozen, read_json
from orchestrator.wire.identity import identify

V = TypeVar("V", bound=Frozen)

REMEDY = "put it back from a copy, or begin a new job"
"""What to do about a file that is not what was written."""

_PLAIN = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")


def path_part(text: str) -> str:
    """Turn an id into one part of a path: as it is where it is plain, else hashed, since it may be a container's."""
    return text if _PLAIN.fullmatch(text) else identify("path", text)


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Say what the disk refused, and about which file.

    Raises:
        DiskError: whenever the disk refuses.
        FileExistsError: as it is, for who must tell it apart.
        FileNotFoundError: the same.
    """
    try:
        yield
    except (FileExistsError, FileNotFoundError):
        raise
    except OSError as error:
        match error.errno:
            case errno.ENOSPC | errno.EDQUOT:
                message = f"no space left to write {path}; free some, or name another store with --storage"
            case errno.ELOOP:
                message = f"{path} is a symbolic link, which the store never follows; remove it"
            case _:
                message = f"{path} cannot be used: {error.strerror}; check its owner and mode, or use another --storage"
        raise DiskError(message) from error


def is_real_directory(path: Path) -> bool:
    """Whether there is a directory at `path`, not through a link.

    Raises:
        StoreError: something else is there.
    """
    try:
        with translated(path):
            mode = path.lstat().st_mode
    except FileNotFoundError:
        return False
    if not stat.S_ISDIR(mode):
        message = f"{path} is not a directory, as the store needs; remove it"
        raise StoreError(message)
    return True


def make_directory(path: Path, *, exist_ok: bool = False) -> None:
    """Make a directory for this user alone; those above the store's root are made too.

    Raises:
        StoreError: the disk refuses, or something else has that name.
        FileExistsError: it is there, and not `exist_ok`.
    """
    with translated(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.mkdir(mode=0o700)
        except FileExistsError:
            if not exist_ok:
                raise
    is_real_directory(path)


def write_whole(path: Path, content: bytes, *, synced: bool = True) -> None:
    """Put `content` at `path`: after a crash there is the old content or the new.

    Where it is `synced`, what returned would also survive the machine; else `sync` sees to that.

    Raises:
        DiskError: the disk refuses; the old content stands.
    """
    unfinished = path.with_name(f".{path.name}.{uuid4().hex}")
    try:
        with translated(path):
            _write(unfinished, content, synced=synced)
            unfinished.rename(path)
            if synced:
                _sync(path.parent, os.O_DIRECTORY)
    finally:
        unfinished.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Return once the file at `path` would survive the machine; one that is gone needs not.

    Raises:
        DiskError: the disk refuses.
    """
    with suppress(FileNotFoundError), translated(path):
        _sync(path, os.O_NOFOLLOW)
        _sync(path.parent, os.O_DIRECTORY)


def write_below(top: Path, path: Path, content: bytes, *, synced: bool) -> None:
    """Write a whole file, and make the directories between `top` and it.

    Raises:
        DiskError: the disk refuses.
        StoreError: what should be a directory is something else.
    """
    below = path.parent.relative_to(top)
    for above in reversed((below, *below.parents)):
        make_directory(top / above, exist_ok=True)
    write_whole(path, content, synced=synced)


def read_value(path: Path, shape: type[V]) -> V:
    """Read the value in a file.

    Raises:
        StoreError: there is none, or it is damaged; names the file.
    """
    try:
        with translated(path), os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
            return read_json(Decoder(shape), file.read())
    except FileNotFoundError as error:
        message = f"{path} is not there, so the job's records are incomplete; {REMEDY}"
        raise StoreError(message) from error
    except WireError as error:
        message = f"{path} is damaged: {error}; {REMEDY}"
        raise StoreError(message) from error


def readable(
    directory: Path, shape: type[V], pattern: str = "*.json", note: Callable[[StoreError], None] = lambda _: None
) -> Iterator[V]:
    """Read the values in the files that match, by name; of those that cannot be read, `note` gets the reason."""
    for path in sorted(directory.glob(pattern)):
        try:
            yield read_value(path, shape)
        except StoreError as error:
            note(error)


def kept_secret(path: Path, size: int) -> bytes:
    """Read the secret in a file; where there is none, one of `size` bytes is made.

    Raises:
        DiskError: the disk refuses.
    """
    try:
        with translated(path):
            return path.read_bytes()
    except FileNotFoundError:
        write_whole(path, key := secrets.token_bytes(size))
        return key


def _write(path: Path, content: bytes, *, synced: bool) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(content)
        if synced:
            file.flush()
            os.fsync(file.fileno())


def _sync(path: Path, flags: int) -> None:
    fd = os.open(path, os.O_RDONLY | flags)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
