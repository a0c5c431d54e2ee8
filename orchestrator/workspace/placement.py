"""Whether Sandboxes mount the workspace's directory or work on a copy of it; pure."""

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path

from orchestrator.errors import ConfigError
from orchestrator.sandbox.api import Sharing


class WorkspaceMode(StrEnum):
    """The values of `--workspace-mode`."""

    AUTO = "auto"
    BIND = "bind"
    COPY = "copy"


def reason_to_copy(mode: WorkspaceMode, sharing: Sharing, directory: Path, guarded: Sequence[str]) -> str | None:
    """Return why a job works on a copy of its workspace; None if the directory is mounted.

    `guarded` are the names of files in it that Experts may not read or write.

    Raises:
        ConfigError: the directory must be mounted, and cannot be or would give Experts its guarded files.
    """
    if mode is WorkspaceMode.COPY:
        return "--workspace-mode is copy"
    reason = None
    if sharing is Sharing.NONE:
        reason = "the engine does not see its files"
    elif sharing is Sharing.FOLDED and guarded:
        reason = f"its file system takes other spellings for the names of {', '.join(guarded)}"
    if reason is not None and mode is WorkspaceMode.BIND:
        message = (
            f"workspace {directory} cannot be mounted: {reason}; leave --workspace-mode out to work on a copy,"
            " or use --workspace volume:NAME"
        )
        raise ConfigError(message)
    return reason
