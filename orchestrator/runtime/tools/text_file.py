"""Reading and writing whole text files, as several tools need it."""

import os
from pathlib import Path

from orchestrator.runtime.tools import ToolError
from orchestrator.runtime.tools.paths import regular_file

READ_BYTES = 16 * 1024 * 1024
"""The most that one call reads into memory."""

_MODE = 0o644


def read(workspace: Path, path: str) -> bytes:
    """Read a whole file.

    Raises:
        ToolError: it cannot be read, or is larger than READ_BYTES.
    """
    with regular_file(workspace, path, os.O_RDONLY) as fd, os.fdopen(os.dup(fd), "rb") as file:
        data = file.read(READ_BYTES + 1)
    if len(data) > READ_BYTES:
        message = f"path {path!r} is larger than {READ_BYTES // 2**20} MiB"
        raise ToolError(message)
    return data


def write(workspace: Path, path: str, data: bytes, *, create: bool) -> None:
    """Replace what a file holds; `create` it if need be.

    Raises:
        ToolError: it cannot be written.
    """
    # Emptied only once it is known to be a regular file.
    flags = os.O_WRONLY | (os.O_CREAT if create else 0)
    with regular_file(workspace, path, flags, _MODE) as fd:
        os.ftruncate(fd, 0)
        _write_all(fd, data)


def append(workspace: Path, path: str, data: bytes) -> None:
    """Write at the end of a file that exists.

    Raises:
        ToolError: it cannot be written.
    """
    with regular_file(workspace, path, os.O_WRONLY | os.O_APPEND) as fd:
        _write_all(fd, data)


def encode(text: str) -> bytes:
    """Text as files hold it; halves of surrogate pairs, which JSON allows and UTF-8 does not, become question marks."""
    return text.encode("utf-8", errors="replace")


def _write_all(fd: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]
