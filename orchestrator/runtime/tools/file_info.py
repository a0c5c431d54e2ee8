"""Facts about a file, as file tools return them."""

import os
import stat
from datetime import UTC, datetime


def kind_of(status: os.stat_result) -> str:
    """`directory`, `symlink`, or `file` for everything else."""
    if stat.S_ISDIR(status.st_mode):
        return "directory"
    return "symlink" if stat.S_ISLNK(status.st_mode) else "file"


def iso(seconds: float) -> str:
    """Unix seconds as UTC in ISO 8601 with milliseconds."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def formatted(size: int) -> str:
    """A number of bytes as readable text."""
    amount = float(size)
    for unit in ("B", "KB", "MB", "GB"):
        if amount < 1024:  # noqa: PLR2004 - the step from one unit to the next
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.2f} {unit}"
        amount /= 1024
    return f"{amount:.2f} TB"
