"""Who started this process: the user ids that count as theirs, and the directories where they keep state."""

import os
import pwd
from collections.abc import Iterator
from pathlib import Path

OURS = "perstack-orch"
"""The directory of this project among those of others where state is kept."""

_ROOT = 0
_OF_ROOT = Path("/var/lib")
"""Where root keeps state: other users can read there which directories root has mounted, and not in /root."""


def own_uids() -> frozenset[int]:
    """Give the users whose files count as the caller's own: the caller, root, and who became root through sudo."""
    uids = {os.geteuid(), _ROOT}
    if (sudo := _sudo_uid()) is not None:
        uids.add(sudo)
    return frozenset(uids)


def state_home() -> Path | None:
    """Give the directory in which the caller's state is written; None where the caller has no home.

    It is $XDG_STATE_HOME, /var/lib for root, or else ~/.local/state. A variable counts only if what it names belongs
    to the caller: sudo, su and setpriv may leave that of another user.
    """
    named = _absolute(os.environ.get("XDG_STATE_HOME"))
    if named is not None and _is_own(_nearest(named)):
        return named
    if os.geteuid() == _ROOT:
        return _OF_ROOT
    return next((_below(home) for home in _homes() if _is_own(home)), None)


def state_of_caller() -> Path | None:
    """Give the directory for all that is kept for the caller between jobs; None where the caller has no home."""
    above = state_home()
    return above and above / OURS


def known_state_homes() -> tuple[Path, ...]:
    """List all directories in which state of the caller's may have been written, with another environment or by root.

    Through sudo, what the user has written counts as well, as far as it is below their home.
    """
    sudo = _sudo_uid()
    there = (state_home(), *map(_below, _homes()), _OF_ROOT, *(map(_below, _passwd(sudo)) if sudo is not None else ()))
    return tuple(dict.fromkeys(path for path in there if path is not None))


def home() -> Path | None:
    """Give the caller's home directory, whoever it belongs to; None where there is none."""
    return next(_homes(), None)


def _homes() -> Iterator[Path]:
    if (named := _absolute(os.environ.get("HOME"))) is not None:
        yield named
    yield from _passwd(os.geteuid())


def _passwd(uid: int) -> Iterator[Path]:
    try:
        yield Path(pwd.getpwuid(uid).pw_dir)
    except KeyError:
        return


def _sudo_uid() -> int | None:
    text = os.environ.get("SUDO_UID", "")
    return int(text) if os.geteuid() == _ROOT and text.isascii() and text.isdigit() else None


def _absolute(text: str | None) -> Path | None:
    # As the XDG base directory specification says: a relative path is to be ignored.
    return Path(text) if text and os.path.isabs(text) else None  # noqa: PTH117 - of a text that may be empty


def _below(home: Path) -> Path:
    return home / ".local" / "state"


def _nearest(path: Path) -> Path:
    """Give the path, or the nearest directory above it that is there."""
    return next((each for each in (path, *path.parents) if os.path.lexists(each)), path)


def _is_own(path: Path) -> bool:
    try:
        return path.stat().st_uid == os.geteuid()
    except OSError:
        return False
