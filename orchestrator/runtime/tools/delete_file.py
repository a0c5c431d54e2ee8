"""The tool `deleteFile`."""

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.runtime.tools import ToolError, define
from orchestrator.runtime.tools.paths import parent, resolve, shown

DEFINITION = define(
    "deleteFile",
    "Delete a file of the workspace. A symbolic link is deleted itself, not what it leads to.",
    required=("path",),
    path={"type": "string", "description": "The file, relative to the workspace or below /workspace."},
)


def execute(args: Mapping[str, Any], workspace: Path) -> Mapping[str, Any]:
    """Delete the file.

    Raises:
        ToolError: it does not exist or is a directory.
    """
    path = args["path"]
    with parent(workspace, path) as (directory, name):
        if stat.S_ISDIR(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
            message = f"path {path!r} is a directory; use deleteDirectory"
            raise ToolError(message)
        os.unlink(name, dir_fd=directory)
    return {"path": shown(resolve(workspace, path))}
