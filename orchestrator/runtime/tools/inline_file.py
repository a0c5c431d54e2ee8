"""Read a whole file for the model to view."""

import os
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from orchestrator.runtime.tools import ToolError
from orchestrator.runtime.tools.paths import regular_file


def read(workspace: Path, path: str, types: Mapping[str, str], limit: int) -> tuple[str, bytes]:
    """Return the MIME type (by extension) and the bytes of a file of at most `limit` bytes.

    Raises:
        ToolError: it cannot be read, is of another type, empty, or larger.
    """
    mime_type = types.get(PurePosixPath(path).suffix.lower())
    if mime_type is None:
        message = f"path {path!r} has an unsupported type; supported are: {', '.join(types)}"
        raise ToolError(message)
    with regular_file(workspace, path, os.O_RDONLY) as fd, os.fdopen(os.dup(fd), "rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        message = f"path {path!r} is larger than {limit // 2**20} MiB"
        raise ToolError(message)
    if not data:
        # No API accepts an empty file, and it would be in every later call of the conversation.
        message = f"path {path!r} is empty"
        raise ToolError(message)
    return mime_type, data
