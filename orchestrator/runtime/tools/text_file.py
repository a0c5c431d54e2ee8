"""Read and change whole text files, for several tools."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from orchestrator.runtime.tools import ToolError
from orchestrator.runtime.tools.paths import open_beneath, parent, regular_file, require_regular, resolve
from orchestrator.runtime.tools.replace import ChangedError, TooLargeError, Version, append, create, replace

READ_BYTES = 16 * 1024 * 1024
"""The most bytes that one call reads into memory."""

_MODE = 0o644
_TRIES = 8


def read(workspace: Path, path: str) -> bytes:
    """Read a whole file.

    Raises:
        ToolError: it cannot be read, or is larger than READ_BYTES.
    """
    with regular_file(workspace, path, os.O_RDONLY) as fd:
        return _content(fd, path)


def write(workspace: Path, path: str, data: bytes) -> None:
    """Replace the content of a file, or create it.

    Raises:
        ToolError: it cannot be written; its content is unchanged.
    """

    def once() -> None:
        with _place(workspace, path) as (directory, name):
            try:
                fd = open_beneath(directory, PurePosixPath(name), os.O_WRONLY)
            except FileNotFoundError:
                create(directory, name, data, _MODE)
                return
            with _closing(fd, path):
                replace(directory, name, fd, data)

    _until_unchanged(once, path)


def edit(workspace: Path, path: str, change: Callable[[bytes], bytes]) -> None:
    """Replace the content of a file by `change` of it; if another process changed it in the meantime, start again.

    Raises:
        ToolError: `change` raised it, or the file cannot be read or written; its content is unchanged.
    """

    def once() -> None:
        with _place(workspace, path) as (directory, name):
            fd = open_beneath(directory, PurePosixPath(name), os.O_RDWR)
            with _closing(fd, path):
                base = Version.of(os.fstat(fd))
                replace(directory, name, fd, change(_content(fd, path)), base)

    _until_unchanged(once, path)


def add(workspace: Path, path: str, data: bytes) -> None:
    """Append to an existing file.

    Raises:
        ToolError: it cannot be written; its content is unchanged.
    """
    with regular_file(workspace, path, os.O_WRONLY | os.O_APPEND) as fd:
        append(fd, data)


def encode(text: str) -> bytes:
    """Encode text for a file; unpaired surrogates, which JSON allows and UTF-8 does not, become question marks."""
    return text.encode("utf-8", errors="replace")


def _content(fd: int, path: str) -> bytes:
    with os.fdopen(os.dup(fd), "rb") as file:
        data = file.read(READ_BYTES + 1)
    if len(data) > READ_BYTES:
        message = f"path {path!r} is larger than {READ_BYTES // 2**20} MiB"
        raise ToolError(message)
    return data


@contextmanager
def _place(workspace: Path, path: str) -> Iterator[tuple[int, str]]:
    if not resolve(workspace, path).parts:
        message = f"path {path!r} is a directory"
        raise ToolError(message)
    try:
        with parent(workspace, path) as place:
            yield place
    except TooLargeError as error:
        message = f"path {path!r} can only be written in place, and is too large for that; write a new file instead"
        raise ToolError(message) from error


@contextmanager
def _closing(fd: int, path: str) -> Iterator[None]:
    try:
        require_regular(fd, path)
        yield
    finally:
        os.close(fd)


def _until_unchanged(once: Callable[[], None], path: str) -> None:
    """Retry if another process changed or created the file between the first look at it and the change."""
    for _ in range(_TRIES):
        try:
            once()
        except ChangedError:
            continue
        else:
            return
    message = f"path {path!r} is changed by another process all the time, so nothing was written; try again"
    raise ToolError(message)
