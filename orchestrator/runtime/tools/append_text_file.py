"""The tool `appendTextFile`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.runtime.tools import define, text_file
from orchestrator.runtime.tools.paths import resolve, shown

DEFINITION = define(
    "appendTextFile",
    "Add text at the end of a file of the workspace that exists. No newline is added.",
    required=("path", "text"),
    path={"type": "string", "description": "The file, relative to the workspace or below /workspace."},
    text={"type": "string", "description": "What to add."},
)


def execute(args: Mapping[str, Any], workspace: Path) -> Mapping[str, Any]:
    """Append to the file.

    Raises:
        ToolError: the file does not exist or cannot be written.
    """
    path, text = args["path"], args["text"]
    text_file.add(workspace, path, text_file.encode(text))
    return {"path": shown(resolve(workspace, path)), "text": text}
