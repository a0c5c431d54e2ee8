"""The tool `readTextFile`."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from orchestrator.runtime.tools import ToolError, define
from orchestrator.runtime.tools.paths import regular_file
from orchestrator.runtime.tools.text_file import READ_BYTES

DEFINITION = define(
    "readTextFile",
    "Read a UTF-8 text file of the workspace, whole or a range of its lines.",
    required=("path",),
    path={"type": "string", "description": "The file, relative to the workspace or below /workspace."},
    **{"from": {"type": "number", "description": "First line to read, counted from 0. Default: 0."}},
    to={"type": "number", "description": "Line to stop before. Default: the end of the file."},
)


def execute(args: Mapping[str, Any], workspace: Path) -> Mapping[str, Any]:
    """Read lines `from` to `to`, 0-based, end-exclusive.

    Raises:
        ToolError: the file cannot be read, or the range is too large.
    """
    path = args["path"]
    first = max(0, int(args.get("from") or 0))
    last = None if args.get("to") is None else max(0, int(args["to"]))
    with regular_file(workspace, path, os.O_RDONLY) as fd, os.fdopen(os.dup(fd), "rb") as file:
        lines = list(_lines(file, path, first, last))
    text = b"\n".join(lines).decode("utf-8", errors="replace")
    return {"path": path, "content": text, "from": first, "to": first + len(lines) if last is None else last}


def _lines(file: BinaryIO, path: str, first: int, last: int | None) -> Iterator[bytes]:
    size, number, ended = 0, 0, False
    while not ended and (last is None or number < last):
        line = file.readline(READ_BYTES + 1)
        ended = not line.endswith(b"\n")
        size += len(line) if number >= first else 0
        if size > READ_BYTES or len(line) > READ_BYTES:
            message = f"path {path!r}: this is more than {READ_BYTES // 2**20} MiB; read a part, with from and to"
            raise ToolError(message)
        if number >= first:
            yield line.removesuffix(b"\n")
        number += 1
