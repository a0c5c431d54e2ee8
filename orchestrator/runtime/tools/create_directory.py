"""The tool `createDirectory`."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.runtime.tools import define
from orchestrator.runtime.tools.paths import parent, resolve, shown

DEFINITION = define(
    "createDirectory",
    "Create a directory in the workspace. The directory that is to hold it must exist.",
    required=("path",),
    path={"type": "string", "description": "The new directory, relative to the workspace or below /workspace."},
)


def execute(args: Mapping[str, Any], workspace: Path) -> Mapping[str, Any]:
    """Create the directory.

    Raises:
        ToolError: it exists, or its parent does not.
    """
    path = args["path"]
    with parent(workspace, path) as (directory, name):
        os.mkdir(name, 0o755, dir_fd=directory)
    return {"path": shown(resolve(workspace, path))}
