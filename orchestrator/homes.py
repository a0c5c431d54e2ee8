"""Home directories: what of them is too much to hand to an Expert."""

import os
import pwd
from collections.abc import Iterator
from pathlib import Path

from orchestrator.caller import home

_CHECKOUTS = "worktrees"
"""A directory of this name in a hidden one of a home holds work, and no settings: tools keep checkouts there."""


def of_a_home(directory: Path) -> str | None:
    """Say what of anybody's home a directory, by its real path, is or holds that no Expert is to have.

    That is a home itself, and all in what is hidden there, as ~/.ssh and ~/.config are, but for what is in `worktrees`.
    """
    return next((held for user, path in _homes() if (held := _held(path, user, directory)) is not None), None)


def _homes() -> Iterator[tuple[str, Path]]:
    """Give each user's name and home by its real path: keys are there, and whose they are matters little."""
    homes = [(entry.pw_name, entry.pw_dir) for entry in pwd.getpwall()]
    if (own := home()) is not None:
        homes.append((str(os.geteuid()), str(own)))
    # Not all may be looked at; one that is not there is nobody's.
    return ((user, Path(os.path.realpath(path))) for user, path in homes if os.path.isdir(path))  # noqa: PTH112 - no error


def _held(home: Path, user: str, directory: Path) -> str | None:
    if home.is_relative_to(directory):
        return f"the home directory of user {user}"
    # Many a system user has all of the machine for a home.
    if home == Path("/") or not directory.is_relative_to(home):
        return None
    hidden, *inner = directory.relative_to(home).parts
    if not hidden.startswith(".") or _CHECKOUTS in inner[:-1]:
        return None
    return f"files of {home / hidden}, where settings and keys of user {user} are"
