"""The way to the broker's socket: open until the Sandbox has come in, then shut behind it.

In a Sandbox everything runs as one user, and Landlock does not stand between a process and a socket's path. So the
runtime opens the socket's directory before anything else runs; then the host takes all permissions from the directory
above it. Who has the inner one open still gets to the socket, and to one that is put in its place; nobody else does.
The gate is mounted read-only, so that its owner, who may be the Sandbox's own user, cannot open it again from inside.
"""

import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from orchestrator.disk.deletion import delete
from orchestrator.errors import BackendError
from orchestrator.wire.link import GATE_NAME, SOCKET_NAME

_PASSABLE, _SHUT, _OURS = 0o711, 0o000, 0o700


def make_gate(state: Path) -> Path:
    """Make the gate in a state directory, open for everybody, or open one that was shut for us alone.

    Gives the path for a socket behind it.

    Raises:
        OSError: it cannot be made.
    """
    gate = state / GATE_NAME
    path = gate / SOCKET_NAME
    unlock(state)
    if not gate.exists():
        for directory in (gate, path.parent):
            directory.mkdir()
            directory.chmod(_PASSABLE)
    return path


def shut(state: Path) -> None:
    """Let nobody in any more who is not in already.

    Raises:
        OSError: it is gone.
    """
    (state / GATE_NAME).chmod(_SHUT)


def unlock(state: Path) -> None:
    """Make what is behind the gate the host's again, so that it can be removed."""
    # Who is the Sandbox's user too may have lost the directory: nothing keeps its owner inside from changing modes.
    with suppress(OSError):
        state.chmod(_OURS)
    gate = state / GATE_NAME
    with suppress(OSError):
        if gate.is_dir() and not gate.is_symlink() and stat.S_IMODE(gate.stat().st_mode) == _SHUT:
            gate.chmod(_OURS)


@contextmanager
def socket_in(state: Path) -> Iterator[Path]:
    """Give the path for a socket behind an open gate; afterwards socket and gate are removed.

    Raises:
        BackendError: the gate cannot be made.
    """
    try:
        path = make_gate(state)
    except OSError as error:
        message = (
            f"the way to the broker's socket in {state} could not be made: {error.strerror}; "
            "look at that directory's space and mode"
        )
        raise BackendError(message) from error
    try:
        yield path
    finally:
        unlock(state)
        delete(path)
