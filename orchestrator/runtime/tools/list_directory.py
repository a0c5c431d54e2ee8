"""The tool `listDirectory`."""

import os
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from orchestrator.runtime.tools import define
from orchestrator.runtime.tools.file_info import iso, kind_of
from orchestrator.runtime.tools.paths import is_reserved, open_in_workspace, resolve, shown, translate_os_errors

DEFINITION = define(
    "listDirectory",
    "List the entries of a directory of the workspace, sorted by name. Symbolic links are listed, not followed.",
    required=("path",),
    path={"type": "string", "description": 'The directory; "." is the workspace.'},
)


def execute(args: Mapping[str, Any], workspace: Path) -> Mapping[str, Any]:
    """List the directory.

    Raises:
        ToolError: it is not a readable directory.
    """
    path = args["path"]
    relative = resolve(workspace, path)
    with open_in_workspace(workspace, path, os.O_RDONLY | os.O_DIRECTORY) as fd, translate_os_errors(path):
        names = sorted(os.listdir(fd))  # noqa: PTH208 - of a descriptor, which a Path cannot be
        items = [_item(fd, name) for name in names if not is_reserved(relative / name)]
    return {"path": shown(relative), "items": [item for item in items if item is not None]}


def _item(directory: int, name: str) -> Mapping[str, Any] | None:
    try:
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None  # Deleted since it was listed.
    shown_name = PurePosixPath(name).name
    return {
        "name": shown_name,
        "path": shown_name,
        "type": kind_of(status),
        "size": status.st_size,
        "modified": iso(status.st_mtime),
    }
