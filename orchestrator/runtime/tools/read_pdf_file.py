"""The tool `readPdfFile`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.runtime.tools import Inline, define, inline_file

LIMIT = 30 * 1024 * 1024
TYPES = {".pdf": "application/pdf"}

DEFINITION = define(
    "readPdfFile",
    "Look at a PDF of the workspace, at most 30 MiB.",
    required=("path",),
    path={"type": "string", "description": "The PDF, relative to the workspace or below /workspace."},
)


def execute(args: Mapping[str, Any], workspace: Path) -> Inline:
    """Read the PDF.

    Raises:
        ToolError: it cannot be read, is of another type, or too large.
    """
    mime_type, data = inline_file.read(workspace, args["path"], TYPES, LIMIT)
    return Inline("file", mime_type, data)
