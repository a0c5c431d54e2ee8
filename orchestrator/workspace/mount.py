"""The steps before a workspace is mounted: it is made, checked again, and recorded; guarded files are copied.

Any process that may write to the directory above it can replace it, or put a link there, at any time.
"""

import os
import time
from dataclasses import replace
from pathlib import Path

from orchestrator.backends import mounts_host
from orchestrator.disk.directory import Inode, inode_at, inode_of, make_at, open_at
from orchestrator.disk.mount_registry import record_mount
from orchestrator.disk.plain_file import read_plain
from orchestrator.disk.whole_file import write_atomically
from orchestrator.errors import ConfigError
from orchestrator.workspace.workspace import READ_ONLY, Workspace

COPIES = "read-only"
"""The directory, next to the state directories of a job, with copies of files that Experts may read and not change."""

# Together a fifth of a second: enough for another job of the same user to make the same directory.
_TRIES = 20
_PAUSE_SECONDS = 0.01


def ensure(workspace: Workspace) -> Workspace:
    """Make the directory if it is absent; return the current workspace, to be used in place of `workspace`.

    If the directory appears meanwhile, it is checked as if it had existed from the beginning.

    Raises:
        ConfigError: it cannot be made, may not be used, or is not the directory that was checked.
    """
    for left in reversed(range(_TRIES)):
        if not workspace.absent:
            require_same(workspace)
            return workspace
        try:
            return replace(workspace, absent=False, recheck=None, inode=_make(workspace))
        except FileExistsError:
            try:
                workspace = _recheck(workspace)
            except ConfigError:
                # Another job of this user may be just making it.
                if not left:
                    raise
                time.sleep(_PAUSE_SECONDS)
    message = (
        f"workspace {workspace.path} cannot be made: another file is there, or appears and disappears; "
        f"find out which program changes {workspace.path.parent}, or {workspace.remedy}"
    )
    raise ConfigError(message)


def _make(workspace: Workspace) -> Inode:
    try:
        return make_at(workspace.path, (workspace.user.uid, workspace.user.gid), 0o755)
    except FileExistsError:
        raise
    except OSError as error:
        message = f"workspace {workspace.path} cannot be made: {error.strerror}; {workspace.remedy}"
        raise ConfigError(message) from error


def _recheck(workspace: Workspace) -> Workspace:
    if workspace.recheck is None:
        message = f"workspace {workspace.path} exists already; {workspace.remedy}"
        raise ConfigError(message)
    return replace(workspace.recheck(), remedy=workspace.remedy)


def remember(workspace: Workspace, backend: str) -> None:
    """Record that Experts will write the directory, if the backend isolates them and mounts from this machine.

    They write it through a copy too, but not where the workspace is a volume of the user's.

    Raises:
        ConfigError: it cannot be recorded.
    """
    if mounts_host(backend) and (workspace.volume is None or workspace.volume.is_copy):
        record_mount(workspace.path)


def require_same(workspace: Workspace) -> None:
    """Check that the directory at the workspace's path is still the one that was checked.

    Raises:
        ConfigError: it is another, or none.
    """
    if workspace.inode is None:
        return
    try:
        same = inode_at(workspace.path) == workspace.inode
    except OSError:
        same = False
    if not same:
        raise _replaced(workspace)


def _replaced(workspace: Workspace) -> ConfigError:
    message = (
        f"workspace {workspace.path} is no longer the directory that was checked; "
        f"find out which program changes {workspace.path.parent}, then start again"
    )
    return ConfigError(message)


def copy_read_only(workspace: Workspace, directory: Path) -> None:
    """Copy files that Experts may not change to `COPIES` in a directory of ours; existing copies stay as they are.

    Raises:
        ConfigError: a file is gone, not a regular file or too large, or the workspace was replaced.
    """
    copies = directory / COPIES
    missing = [file for file in workspace.read_only if not (copies / file).exists()]
    if not missing:
        return
    try:
        copies.mkdir(mode=0o711, exist_ok=True)
        files = open_at(workspace.path)
    except OSError as error:
        message = f"files of workspace {workspace.path} cannot be protected: {error.strerror}; try again"
        raise ConfigError(message) from error
    try:
        if workspace.inode not in {None, inode_of(os.fstat(files))}:
            raise _replaced(workspace)
        for file in missing:
            _copy(workspace.path / file, files, copies / file)
    finally:
        os.close(files)


def _copy(path: Path, opened: int, copy: Path) -> None:
    """Copy the file at `path`; `opened` is its directory, even if that is replaced."""
    try:
        content = read_plain(Path(path.name), READ_ONLY[copy.name], follow=False, dir_fd=opened)
        write_atomically(copy, content, mode=0o444)
    except OSError as error:
        message = f"{path} cannot be protected from Experts: {error.strerror}; try again"
        raise ConfigError(message) from error
    except ValueError as error:
        message = f"{path} {error}, so it cannot be protected from Experts; replace it, or remove it"
        raise ConfigError(message) from error
