"""What differs between the file systems of Linux and macOS: flags, syncing, and the spelling of paths."""

import fcntl
import os
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path

_PATH_BYTES = 1024
"""MAXPATHLEN of macOS."""

if sys.platform == "linux":
    PASS = os.O_PATH
    """Opens a directory to pass through it, or to inspect it. On Linux this needs no right to list the directory."""
else:
    PASS = os.O_RDONLY


def sync_to_disk(file: int) -> None:
    """Return once the content of an open file or directory would survive a loss of power.

    On macOS, `fsync` only hands the content to the disk, which may keep it in its cache: see fsync(2) at
    https://developer.apple.com/library/archive/documentation/System/Conceptual/ManPages_iPhoneOS/man2/fsync.2.html

    Raises:
        OSError: the disk fails.
    """
    if sys.platform == "darwin":
        # Not every file system has it, such as shares of a network.
        with suppress(OSError):
            fcntl.fcntl(file, fcntl.F_FULLFSYNC)
            return
    os.fsync(file)


def spelled(directory: int, path: Path) -> Path:
    """Return the path of an open directory as its file system spells it; `path` is how it was opened.

    On macOS one directory has several spellings: in other letter case, or with other Unicode forms of a letter.
    """
    if sys.platform == "darwin":
        with suppress(OSError):
            return Path(os.fsdecode(fcntl.fcntl(directory, fcntl.F_GETPATH, bytes(_PATH_BYTES)).rstrip(b"\0")))
    return path


def real_path(path: Path) -> Path:
    """Return a path without links, spelled as its file system does; its end may not exist yet."""
    real = path.resolve()
    if sys.platform == "linux":
        return real
    for each in (real, *real.parents):
        with suppress(OSError):
            opened = os.open(each, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                return spelled(opened, each) / real.relative_to(each)
            finally:
                os.close(opened)
    return real


def same_names(names: tuple[str, ...], others: tuple[str, ...]) -> bool:
    """Whether names that do not exist yet would be the same files in one directory."""
    return _folded(names) == _folded(others)


def _folded(names: tuple[str, ...]) -> tuple[str, ...]:
    if sys.platform == "linux":
        return names
    import unicodedata  # noqa: PLC0415 - Linux does not need it

    return tuple(unicodedata.normalize("NFD", name).casefold() for name in names)


@cache
def boot_id() -> str:
    """Return an id of this boot: device numbers may change at the next. It is "unknown" where the system has none."""
    if sys.platform == "linux":
        with suppress(OSError):
            return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return "unknown"
