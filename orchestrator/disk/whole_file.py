"""Files that are replaced whole or not at all."""

import os
import re
import time
from contextlib import suppress
from pathlib import Path

from orchestrator.disk.system import sync_to_disk

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_PERMISSIONS = 0o777
_UNFINISHED = re.compile(r"\..+\.[0-9a-f]{32}")
_WRITING_SECONDS = 10
"""Far longer than a small file takes."""


def write_atomically(
    path: Path, content: bytes, *, mode: int | None = 0o600, synced: bool = False, dir_fd: int | None = None
) -> None:
    """Write `content` to the file at `path`: after a crash it has the old content or the new.

    The content is written to a new file next to it, `.<name>.<random>`, which then takes its name; a failure leaves no
    such file. It gets exactly `mode`, or what the umask leaves of 0666 if that is None. If `synced`, the file survives
    a loss of power once this returns; otherwise `sync_file` makes it so. A relative path is below `dir_fd`, if given.

    Raises:
        OSError: the file cannot be written; the old content stands.
    """
    above, name = os.path.split(path)
    fresh = os.path.join(above, f".{name}.{os.urandom(16).hex()}")  # noqa: PTH118 - may be relative to a descriptor
    file = os.open(fresh, _CREATE, 0o666 if mode is None else mode, dir_fd=dir_fd)
    try:
        _write(file, content, mode, synced=synced)
        os.rename(fresh, path, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
        if synced:
            _sync(above or ".", os.O_DIRECTORY, dir_fd)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(fresh, dir_fd=dir_fd)
        raise


def remove_unfinished(directory: Path) -> None:
    """Remove the new files of `write_atomically` that a killed process left in a directory; recent ones stay."""
    for file in [file for file in directory.glob(".*") if _UNFINISHED.fullmatch(file.name)]:
        with suppress(FileNotFoundError):
            if time.time() - file.lstat().st_mtime > _WRITING_SECONDS:
                file.unlink()


def sync_file(path: Path) -> None:
    """Return once the file at `path`, no symbolic link, would survive a loss of power, under this name.

    Raises:
        OSError: it does not exist, or the disk fails.
    """
    _sync(path, os.O_NOFOLLOW)
    _sync(path.parent, os.O_DIRECTORY)


def _write(file: int, content: bytes, mode: int | None, *, synced: bool) -> None:
    with os.fdopen(file, "wb") as opened:
        # Some file systems have no modes to set, so only one that the umask has changed is.
        if mode is not None and os.fstat(file).st_mode & _PERMISSIONS != mode:
            os.fchmod(file, mode)
        opened.write(content)
        if synced:
            opened.flush()
            sync_to_disk(file)


def _sync(path: Path | str, flags: int, dir_fd: int | None = None) -> None:
    opened = os.open(path, os.O_RDONLY | os.O_CLOEXEC | flags, dir_fd=dir_fd)
    try:
        sync_to_disk(opened)
    finally:
        os.close(opened)
