"""The user who started this process: the user ids that count as theirs, and their state directories."""

import os
import pwd
import sys
from collections.abc import Iterator
from pathlib import Path

PROJECT_DIRECTORY = "perstack-orch"
"""This project's directory inside a state directory."""

_ROOT = 0
_STATE_OF_ROOT = Path("/var/db" if sys.platform == "darwin" else "/var/lib")
"""Root's state directory: other users can read there which directories root has mounted, but not in /root."""


def own_uids() -> frozenset[int]:
    """Return the users whose files count as the caller's own: the caller, root, and the user who called sudo."""
    uids = {os.geteuid(), _ROOT}
    if (sudo := _sudo_uid()) is not None:
        uids.add(sudo)
    return frozenset(uids)


def state_home() -> Path | None:
    """Return the directory for the caller's state; None if the caller has no home.

    It is $XDG_STATE_HOME, /var/lib for root (/var/db on macOS), or else ~/.local/state. The variable counts only if its
    directory belongs to the caller: sudo, su and setpriv may leave that of another user.
    """
    named = _absolute(os.environ.get("XDG_STATE_HOME"))
    if named is not None and _is_own(_nearest(named)):
        return named
    if os.geteuid() == _ROOT:
        return _STATE_OF_ROOT
    return next((_below(home) for home in _homes() if _is_own(home)), None)


def state_of_caller() -> Path | None:
    """Return the directory for this project's state of the caller; None if the caller has no home."""
    above = state_home()
    return above and above / PROJECT_DIRECTORY


def root_of_state_directories() -> Path:
    """Return the directory above the state directories of Sandboxes on this machine.

    On Linux it is /tmp, because the path of a socket has at most 107 bytes; a directory of another user is refused
    there. macOS removes files from /tmp that were not used for three days (https://superuser.com/questions/187071), so
    there it is in the caller's state.
    """
    if sys.platform != "linux" and (above := state_of_caller()) is not None:
        return above / "run"
    return Path("/tmp")  # noqa: S108 - see above


def known_state_homes() -> tuple[Path, ...]:
    """List all directories that may hold state of the caller, also from another environment or written by root.

    Under sudo, this includes the calling user's state directory below their home.
    """
    sudo = _sudo_uid()
    homes = (
        state_home(),
        *map(_below, _homes()),
        _STATE_OF_ROOT,
        *(map(_below, _passwd(sudo)) if sudo is not None else ()),
    )
    return tuple(dict.fromkeys(path for path in homes if path is not None))


def home() -> Path | None:
    """Return the caller's home directory, which another user may own; None if the caller has none."""
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
    # The XDG base directory specification: a relative path must be ignored.
    return Path(text) if text and os.path.isabs(text) else None  # noqa: PTH117 - of a text that may be empty


def _below(home: Path) -> Path:
    return home / ".local" / "state"


def _nearest(path: Path) -> Path:
    """Return the path, or the nearest existing directory above it."""
    return next((each for each in (path, *path.parents) if os.path.lexists(each)), path)


def _is_own(path: Path) -> bool:
    try:
        return path.stat().st_uid == os.geteuid()
    except OSError:
        return False
