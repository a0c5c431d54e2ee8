"""What is done before a workspace is mounted: it is made, checked once more, and recorded; what is guarded is copied.

Whoever may write to the directory above it can put another in its place, or a link, at any time.
"""

import os
import time
from dataclasses import replace
from pathlib import Path

from orchestrator.disk.directory import Inode, inode_at, inode_of, make_at, open_at
from orchestrator.disk.plain_file import read_plain
from orchestrator.errors import ConfigError
from orchestrator.mounted import record
from orchestrator.workspace import READ_ONLY, Workspace

COPIES = "read-only"
"""The directory, beside the state directories of a job, of copies of what Experts may read and not change."""

# Together a fifth of a second: as long as another job of the same user may take to make the same directory.
_TRIES = 20
_PAUSE_SECONDS = 0.01


def ensure(workspace: Workspace) -> Workspace:
    """Make the directory if it is absent; give the workspace as it is now, which is to be used in its place.

    Where something is there by then, it is looked at like one that was there from the beginning.

    Raises:
        ConfigError: it cannot be made, may not be used, or is another than the one that was looked at.
    """
    for left in reversed(range(_TRIES)):
        if not workspace.absent:
            require_same(workspace)
            return workspace
        try:
            return replace(workspace, absent=False, look=None, inode=_made(workspace))
        except FileExistsError:
            try:
                workspace = _again(workspace)
            except ConfigError:
                # Another job of this user may be about to make it.
                if not left:
                    raise
                time.sleep(_PAUSE_SECONDS)
    message = (
        f"workspace {workspace.path} cannot be made, since something else is there or comes and goes; "
        f"find out who changes {workspace.path.parent}, or {workspace.remedy}"
    )
    raise ConfigError(message)


def _made(workspace: Workspace) -> Inode:
    try:
        return make_at(workspace.path, (workspace.user.uid, workspace.user.gid), 0o755)
    except FileExistsError:
        raise
    except OSError as error:
        message = f"workspace {workspace.path} cannot be made: {error.strerror}; {workspace.remedy}"
        raise ConfigError(message) from error


def _again(workspace: Workspace) -> Workspace:
    if workspace.look is None:
        message = f"workspace {workspace.path} is there already; {workspace.remedy}"
        raise ConfigError(message)
    return replace(workspace.look(), remedy=workspace.remedy)


def remember(workspace: Workspace, backend: str) -> None:
    """Record that the directory is mounted, before it is, if the backend isolates Experts and mounts from this machine.

    Raises:
        ConfigError: it cannot be recorded.
    """
    if backend == "docker":
        record(workspace.path)


def require_same(workspace: Workspace) -> None:
    """See that the directory at the workspace's path still is the one that was looked at.

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
        f"workspace {workspace.path} is not the directory any more that was checked; "
        f"find out who changes {workspace.path.parent}, then start again"
    )
    return ConfigError(message)


def copy_read_only(workspace: Workspace, directory: Path) -> None:
    """Copy what Experts may not change to `COPIES` in a directory of ours; what is there already stays as it is.

    Raises:
        ConfigError: a file is not there any more, is none or too large, or the workspace is another by now.
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
            _copy(workspace.path / file, Path(f"/proc/self/fd/{files}", file), copies / file)
    finally:
        os.close(files)


def _copy(path: Path, opened: Path, copy: Path) -> None:
    """Copy the file at `path`; `opened` leads to it whatever somebody puts in the place of its directory."""
    fresh = copy.with_name(f".{copy.name}")
    try:
        fresh.write_bytes(read_plain(opened, READ_ONLY[copy.name], follow=False))
        fresh.chmod(0o444)
        fresh.rename(copy)
    except OSError as error:
        message = f"{path} cannot be protected from Experts: {error.strerror}; try again"
        raise ConfigError(message) from error
    except ValueError as error:
        message = f"{path} {error}, so it cannot be protected from Experts; replace it, or remove it"
        raise ConfigError(message) from error
