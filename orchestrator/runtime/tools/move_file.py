"""The tool `moveFile`."""

import ctypes
import errno
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.runtime.tools import ToolError, define
from orchestrator.runtime.tools.paths import parent, resolve, shown

DEFINITION = define(
    "moveFile",
    "Move or rename a file or directory of the workspace. The destination must not exist; its directory must.",
    required=("source", "destination"),
    source={"type": "string", "description": "What to move, relative to the workspace or below /workspace."},
    destination={"type": "string", "description": "Its new path."},
)

_RENAME_NOREPLACE = 1
_UNSUPPORTED = (errno.ENOSYS, errno.EINVAL, errno.EPERM)
"""Errors of kernels, file systems or seccomp profiles that do not support such a rename."""


def execute(args: Mapping[str, Any], workspace: Path) -> Mapping[str, Any]:
    """Move the file or directory.

    Raises:
        ToolError: the source does not exist or is not writable, or the destination exists.
    """
    source, destination = args["source"], args["destination"]
    with parent(workspace, destination) as (target_fd, new_name), parent(workspace, source) as (source_fd, name):
        mode = os.stat(name, dir_fd=source_fd, follow_symlinks=False).st_mode
        if stat.S_ISLNK(mode) or not mode & stat.S_IWUSR:
            reason = "is a symbolic link" if stat.S_ISLNK(mode) else "is not writable"
            message = f"path {source!r} {reason}"
            raise ToolError(message)
        try:
            _rename(source_fd, name, target_fd, new_name)
        except FileExistsError as error:
            message = f"path {destination!r} exists already"
            raise ToolError(message) from error
    return {"source": shown(resolve(workspace, source)), "destination": shown(resolve(workspace, destination))}


def _rename(source_fd: int, name: str, target_fd: int, new_name: str) -> None:
    """Rename; if the kernel supports it, never replace a file that appears at the destination meanwhile."""
    if _exists(target_fd, new_name):
        raise FileExistsError
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is not None:
        if rename(source_fd, os.fsencode(name), target_fd, os.fsencode(new_name), _RENAME_NOREPLACE) == 0:
            return
        number = ctypes.get_errno()
        if number not in _UNSUPPORTED:
            raise OSError(number, os.strerror(number))
    os.rename(name, new_name, src_dir_fd=source_fd, dst_dir_fd=target_fd)


def _exists(directory: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True
