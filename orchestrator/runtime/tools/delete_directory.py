"""The tool `deleteDirectory`."""

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.disk.deletion import delete
from orchestrator.runtime.tools import ToolError, define
from orchestrator.runtime.tools.paths import parent, resolve, shown

DEFINITION = define(
    "deleteDirectory",
    "Delete a directory of the workspace; one that is not empty only with recursive.",
    required=("path",),
    path={"type": "string", "description": "The directory, relative to the workspace or below /workspace."},
    recursive={"type": "boolean", "description": "Delete all that is in it too. Default: false."},
)


def execute(args: Mapping[str, Any], workspace: Path) -> Mapping[str, Any]:
    """Delete the directory.

    Raises:
        ToolError: it does not exist, is not a directory, or not empty.
    """
    path = args["path"]
    with parent(workspace, path) as (directory, name):
        if not stat.S_ISDIR(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
            message = f"path {path!r} is not a directory; use deleteFile"
            raise ToolError(message)
        if args.get("recursive"):
            if (error := delete(name, dir_fd=directory)) is not None:
                raise error
        else:
            os.rmdir(name, dir_fd=directory)
    return {"path": shown(resolve(workspace, path))}
