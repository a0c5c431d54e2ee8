"""Race-free access to files of the workspace (docs/reference/perstack.md#paths; decision 7).

A path is first normalized as text, then opened below the workspace's directory by the kernel, which refuses every
symbolic link in it. So processes of an Expert cannot redirect a path to the outside by swapping its parts.
"""

import ctypes
import errno
import os
import posixpath
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from orchestrator.runtime.tools import ToolError
from orchestrator.wire.layout import WORKSPACE

SHOWN_ROOT = str(WORKSPACE)
"""The path of every backend's workspace in results."""

RESERVED = "perstack"
"""The directory at the workspace's root that no tool may access, in any letter case."""

_SYS_OPENAT2 = 437
_RESOLVE = 0x08 | 0x04 | 0x02  # RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, RESOLVE_NO_MAGICLINKS
_COMMON_FLAGS = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
_TRIES = 16
_MISSING = "it does not exist"
_NO_PARENT = "its parent directory does not exist; create it first"
_LINK_ERRORS = (errno.ELOOP, errno.EXDEV)


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def resolve(workspace: Path, path: str) -> PurePosixPath:
    """Normalize `path` as text and return it relative to the workspace.

    Empty, `.` and `~` are the workspace itself; absolute paths may start with SHOWN_ROOT or with `workspace`.

    Raises:
        ToolError: the path is outside, reserved, or not a valid path.
    """
    if "\0" in path:
        message = f"path {path!r} holds a NUL character"
        raise ToolError(message)
    if path == "~" or path.startswith("~/"):
        path = path[1:].lstrip("/")
    normal = PurePosixPath(posixpath.normpath(posixpath.join(SHOWN_ROOT, path)))
    root = next((root for root in (SHOWN_ROOT, str(workspace)) if normal.is_relative_to(root)), None)
    if root is None:
        message = f"path {path!r} is outside the allowed directories; use paths below {SHOWN_ROOT}"
        raise ToolError(message)
    relative = normal.relative_to(root)
    if is_reserved(relative):
        message = f"path {path!r} is not allowed: the directory {RESERVED} at the workspace's root is reserved"
        raise ToolError(message)
    return relative


def is_reserved(relative: PurePosixPath) -> bool:
    """Whether a path relative to the workspace is in the reserved directory."""
    return bool(relative.parts) and relative.parts[0].casefold() == RESERVED


def shown(relative: PurePosixPath) -> str:
    """The absolute path for results."""
    return str(SHOWN_ROOT / relative)


@contextmanager
def open_in_workspace(workspace: Path, path: str, flags: int, mode: int = 0) -> Iterator[int]:
    """Open `path`, never through a symbolic link, and without waiting for a FIFO's other end.

    Raises:
        ToolError: the path is not allowed, does not exist, or the kernel refuses.
    """
    relative = resolve(workspace, path)
    with _root(workspace) as root, translate_os_errors(path, missing=_NO_PARENT if flags & os.O_CREAT else _MISSING):
        fd = open_beneath(root, relative, flags, mode)
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def regular_file(workspace: Path, path: str, flags: int, mode: int = 0) -> Iterator[int]:
    """Open a regular file in the same way; devices, sockets, FIFOs and directories are refused.

    Raises:
        ToolError: as for `open_in_workspace`, or it is not a regular file.
    """
    with open_in_workspace(workspace, path, flags, mode) as fd:
        require_regular(fd, path)
        with translate_os_errors(path):
            yield fd


def require_regular(fd: int, path: str) -> None:
    """Check that `fd` is a regular file.

    Raises:
        ToolError: it is a device, socket, FIFO or directory.
    """
    kind = os.fstat(fd).st_mode
    if not stat.S_ISREG(kind):
        message = f"path {path!r} is a directory" if stat.S_ISDIR(kind) else f"path {path!r} is not a regular file"
        raise ToolError(message)


@contextmanager
def parent(workspace: Path, path: str) -> Iterator[tuple[int, str]]:
    """Open the directory that holds `path`, and yield it with the name in it.

    Raises:
        ToolError: as for `open_in_workspace`; or `path` is the workspace itself.
    """
    relative = resolve(workspace, path)
    if not relative.parts:
        message = "the workspace itself cannot be made, moved or deleted"
        raise ToolError(message)
    with _root(workspace) as root:
        with translate_os_errors(path, missing=_NO_PARENT):
            # Changing names in a directory does not require permission to list them.
            fd = open_beneath(root, relative.parent, os.O_PATH | os.O_DIRECTORY)
        try:
            with translate_os_errors(path):
                yield fd, relative.name
        finally:
            os.close(fd)


@contextmanager
def translate_os_errors(path: str, missing: str = _MISSING) -> Iterator[None]:
    """Translate the kernel's errors to sentences.

    Raises:
        ToolError: for any OSError.
    """
    try:
        yield
    except OSError as error:
        reason = {
            errno.ENOENT: missing,
            errno.ENXIO: "it is not a regular file",
            errno.EACCES: "permission denied",
            errno.EEXIST: "it exists already",
            errno.ENOTEMPTY: "the directory is not empty",
        }.get(error.errno or 0, error.strerror or "it cannot be used")
        if error.errno in _LINK_ERRORS:
            reason = "it is a symbolic link or leads through one; use the path of the real file"
        message = f"path {path!r}: {reason}"
        raise ToolError(message) from error


def open_beneath(root: int, relative: PurePosixPath, flags: int, mode: int = 0) -> int:
    """Open a path of plain names below the directory `root`; symbolic links anywhere in it are refused.

    Raises:
        OSError: ELOOP for a link; otherwise as for `open`.
    """
    try:
        return _openat2(root, str(relative), flags | _COMMON_FLAGS, mode)
    except OSError as error:
        # A kernel before 5.6, or an engine whose seccomp profile does not allow the call.
        if error.errno not in (errno.ENOSYS, errno.EPERM):
            raise
    return walk(root, relative, flags, mode)


def walk(root: int, relative: PurePosixPath, flags: int, mode: int = 0) -> int:
    """Do the same without openat2: name by name, each relative to the directory opened before.

    Raises:
        OSError: ELOOP for a link; otherwise as for `open`.
    """
    names = relative.parts or (".",)
    directory = os.dup(root)
    try:
        for name in names[:-1]:
            following = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
            os.close(directory)
            directory = following
            if stat.S_ISLNK(os.fstat(directory).st_mode):
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        fd = os.open(names[-1], flags | _COMMON_FLAGS, mode, dir_fd=directory)
    finally:
        os.close(directory)
    if flags & os.O_PATH and stat.S_ISLNK(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    return fd


@contextmanager
def _root(workspace: Path) -> Iterator[int]:
    fd = os.open(workspace, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def _openat2(root: int, path: str, flags: int, mode: int) -> int:
    # `resolve` refuses links already; with O_NOFOLLOW, O_PATH would open a link itself. openat2 rejects flags that
    # O_PATH would ignore.
    flags &= (os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC) if flags & os.O_PATH else ~os.O_NOFOLLOW
    how = _OpenHow(flags, mode if flags & os.O_CREAT else 0, _RESOLVE)
    syscall = ctypes.CDLL(None, use_errno=True).syscall
    syscall.restype = ctypes.c_long
    for _ in range(_TRIES):
        fd = syscall(
            ctypes.c_long(_SYS_OPENAT2), root, os.fsencode(path), ctypes.byref(how), ctypes.c_size_t(ctypes.sizeof(how))
        )
        if fd >= 0:
            return int(fd)
        if ctypes.get_errno() not in (errno.EAGAIN, errno.EINTR):
            break
    number = ctypes.get_errno()
    raise OSError(number, os.strerror(number))
