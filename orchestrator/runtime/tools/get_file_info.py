"""The tool `getFileInfo`."""

import mimetypes
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.runtime.tools import define
from orchestrator.runtime.tools.file_info import formatted, iso, kind_of
from orchestrator.runtime.tools.paths import open_in_workspace, resolve, shown

DEFINITION = define(
    "getFileInfo",
    "Tell size, type, times and permissions of a file or directory of the workspace.",
    required=("path",),
    path={"type": "string", "description": "The file or directory, relative to the workspace or below /workspace."},
)


def execute(args: Mapping[str, Any], workspace: Path) -> Mapping[str, Any]:
    """Return facts about the file or directory.

    Raises:
        ToolError: it does not exist or is a symbolic link.
    """
    path = args["path"]
    relative = resolve(workspace, path)
    with open_in_workspace(workspace, path, os.O_PATH) as fd:
        status = os.fstat(fd)
    absolute = shown(relative)
    is_directory = stat.S_ISDIR(status.st_mode)
    return {
        "exists": True,
        "path": absolute,
        "absolutePath": absolute,
        "name": relative.name,
        "directory": shown(relative.parent),
        "extension": None if is_directory else relative.suffix or None,
        "type": kind_of(status),
        "mimeType": None if is_directory else mimetypes.guess_type(absolute)[0] or "application/octet-stream",
        "size": status.st_size,
        "sizeFormatted": formatted(status.st_size),
        "created": iso(status.st_ctime),
        "modified": iso(status.st_mtime),
        "accessed": iso(status.st_atime),
        "permissions": {
            "readable": True,
            "writable": bool(status.st_mode & stat.S_IWUSR),
            "executable": bool(status.st_mode & stat.S_IXUSR),
        },
    }
