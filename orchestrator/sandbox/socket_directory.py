"""Access to the broker's socket: open until the Sandbox has connected, then closed.

In a Sandbox all processes run as one user, and Landlock does not restrict connecting to a socket by path. So the
runtime opens the socket's directory before any other program runs; then the host removes all permissions from the
directory above it. A process with the inner directory open still reaches the socket, and a replacement of it; no other
does. The outer directory is mounted read-only, so that its owner, who may be the Sandbox's own user, cannot reopen it
from inside.
"""

import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from orchestrator.disk.deletion import delete
from orchestrator.errors import BackendError
from orchestrator.wire.layout import SOCKET_DIRECTORY_NAME, SOCKET_NAME

_PASSABLE, _SEALED, _OWNER_ONLY = 0o711, 0o000, 0o700


def make_socket_directory(state: Path) -> Path:
    """Create the socket directory in a state directory, open for all; open an existing closed one for us alone.

    Return the path for a socket inside it.

    Raises:
        OSError: it cannot be created.
    """
    outer = state / SOCKET_DIRECTORY_NAME
    path = outer / SOCKET_NAME
    unseal(state)
    if not outer.exists():
        for each in (outer, path.parent):
            each.mkdir()
            each.chmod(_PASSABLE)
    return path


def has_socket_directory(state: Path) -> bool:
    """Whether a socket directory was made in a state directory."""
    return (state / SOCKET_DIRECTORY_NAME).exists()


def seal(state: Path) -> None:
    """Allow no new connection.

    Raises:
        OSError: the socket directory is gone.
    """
    (state / SOCKET_DIRECTORY_NAME).chmod(_SEALED)


def unseal(state: Path) -> None:
    """Make the content of the socket directory accessible to the host again, so that it can be removed."""
    # If the host's user is the Sandbox's too, a process inside may have changed the directory's mode.
    with suppress(OSError):
        state.chmod(_OWNER_ONLY)
    outer = state / SOCKET_DIRECTORY_NAME
    with suppress(OSError):
        if outer.is_dir() and not outer.is_symlink() and stat.S_IMODE(outer.stat().st_mode) == _SEALED:
            outer.chmod(_OWNER_ONLY)


@contextmanager
def socket_path(state: Path) -> Iterator[Path]:
    """Yield the path for a socket inside an open socket directory; afterwards remove socket and directory.

    Raises:
        BackendError: the socket directory cannot be created.
    """
    try:
        path = make_socket_directory(state)
    except OSError as error:
        message = (
            f"the directory of the broker's socket in {state} could not be made: {error.strerror}; "
            "look at that directory's space and mode"
        )
        raise BackendError(message) from error
    try:
        yield path
    finally:
        unseal(state)
        delete(path)
