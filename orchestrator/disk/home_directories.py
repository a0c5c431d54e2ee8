"""Home directories: which parts are too sensitive to give to an Expert."""

import os
import pwd
from collections.abc import Iterator
from pathlib import Path

from orchestrator.disk.caller import home
from orchestrator.disk.containment import is_within, names_below

_CHECKOUTS = "worktrees"
"""A directory of this name inside a hidden one of a home holds work, not settings: tools keep checkouts there."""


def of_a_home(directory: Path) -> str | None:
    """Return which protected part of any user's home a directory, by its real path, is or contains; None if none.

    Protected are a home itself, and everything in its hidden directories, such as ~/.ssh and ~/.config, except below
    `worktrees`.
    """
    return next((found for user, path in _homes() if (found := _protected(path, user, directory)) is not None), None)


def _homes() -> Iterator[tuple[str, Path]]:
    """Yield each user's name and home by its real path: all homes may hold keys, not only the caller's."""
    homes = [(entry.pw_name, entry.pw_dir) for entry in pwd.getpwall()]
    if (own := home()) is not None:
        homes.append((str(os.geteuid()), str(own)))
    # Some homes cannot be read; one that does not exist protects nothing.
    return ((user, Path(os.path.realpath(path))) for user, path in homes if os.path.isdir(path))  # noqa: PTH112 - no error


def _protected(home: Path, user: str, directory: Path) -> str | None:
    if is_within(home, directory):
        return f"the home directory of user {user}"
    # Many system users have / as their home.
    below = None if home == Path("/") else names_below(directory, home)
    if below is None:
        return None
    hidden, *inner = below
    if not hidden.startswith(".") or _CHECKOUTS in inner[:-1]:
        return None
    return f"files of {home / hidden}, which has settings and keys of user {user}"
