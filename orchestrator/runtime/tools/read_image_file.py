"""The tool `readImageFile`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.runtime.tools import Inline, define, inline_file

LIMIT = 15 * 1024 * 1024
TYPES = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".gif": "image/gif", ".webp": "image/webp"}

DEFINITION = define(
    "readImageFile",
    "Look at an image of the workspace: png, jpeg, gif or webp, at most 15 MiB.",
    required=("path",),
    path={"type": "string", "description": "The image, relative to the workspace or below /workspace."},
)


def execute(args: Mapping[str, Any], workspace: Path) -> Inline:
    """Read the image.

    Raises:
        ToolError: it cannot be read, is of another type, or too large.
    """
    mime_type, data = inline_file.read(workspace, args["path"], TYPES, LIMIT)
    return Inline("image", mime_type, data)
