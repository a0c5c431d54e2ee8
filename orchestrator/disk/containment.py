"""Which directory contains which, under any of their names."""

import os
from pathlib import Path

from orchestrator.disk.system import same_names


def is_within(path: Path, directory: Path) -> bool:
    """Whether a path is `directory`, or below it: see `names_below`."""
    return names_below(path, directory) is not None


def names_below(path: Path, directory: Path) -> tuple[str, ...] | None:
    """Return the names that lead from `directory` to `path`, both real paths; None if `path` is not below it.

    Directories that exist are compared by device and inode: a bind mount, and on macOS another letter case, gives
    one directory several paths. What does not exist yet is compared by name.
    """
    if path.is_relative_to(directory):
        return path.relative_to(directory).parts
    existing, status = next(
        (each, found) for each in (directory, *directory.parents) if (found := _status(each)) is not None
    )
    missing = directory.relative_to(existing).parts
    for each in (path, *path.parents):
        found = _status(each)
        if found is None or not os.path.samestat(found, status):
            continue
        names = path.relative_to(each).parts
        if same_names(names[: len(missing)], missing):
            return names[len(missing) :]
    return None


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:
        return None
