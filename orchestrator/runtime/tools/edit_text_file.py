"""The tool `editTextFile`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.runtime.tools import ToolError, define, text_file
from orchestrator.runtime.tools.paths import resolve, shown

DEFINITION = define(
    "editTextFile",
    "Replace the first exact occurrence of a text in a file of the workspace. Line endings become LF.",
    required=("path", "newText", "oldText"),
    path={"type": "string", "description": "The file, relative to the workspace or below /workspace."},
    newText={"type": "string", "description": "What to put there, taken literally."},
    oldText={"type": "string", "description": "What to replace; must occur in the file exactly so."},
)


def execute(args: Mapping[str, Any], workspace: Path) -> Mapping[str, Any]:
    """Replace the first occurrence.

    Raises:
        ToolError: the file does not exist or is not text, or does not contain the old text.
    """
    path = args["path"]
    new, old = (_with_lf(args[name]) for name in ("newText", "oldText"))

    def change(content: bytes) -> bytes:
        try:
            text = _with_lf(content.decode("utf-8"))
        except UnicodeDecodeError as error:
            message = f"path {path!r} is not UTF-8 text"
            raise ToolError(message) from error
        if old not in text:
            message = f"path {path!r}: oldText is not in the file; read it and give the exact text"
            raise ToolError(message)
        return text_file.encode(text.replace(old, new, 1))

    text_file.edit(workspace, path, change)
    return {"path": shown(resolve(workspace, path)), "newText": args["newText"], "oldText": args["oldText"]}


def _with_lf(text: str) -> str:
    return text.replace("\r\n", "\n")
