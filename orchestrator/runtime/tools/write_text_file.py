"""The tool `writeTextFile`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.runtime.tools import define, text_file
from orchestrator.runtime.tools.paths import resolve, shown

DEFINITION = define(
    "writeTextFile",
    "Write a UTF-8 text file in the workspace: create it, or replace all that it holds. Its directory must exist.",
    required=("path", "text"),
    path={"type": "string", "description": "The file, relative to the workspace or below /workspace."},
    text={"type": "string", "description": "All that the file is to hold."},
)


def execute(args: Mapping[str, Any], workspace: Path) -> Mapping[str, Any]:
    """Write the file.

    Raises:
        ToolError: it cannot be written.
    """
    path, text = args["path"], args["text"]
    text_file.write(workspace, path, text_file.encode(text))
    return {"path": shown(resolve(workspace, path)), "text": text}
