"""What an Expert or another user may put in the place of a file that commands read."""

import os
import socket
from collections.abc import Callable, Mapping
from pathlib import Path

SPARSE_BYTES = 3 << 30
"""More than a command may take of memory or of time; on the disk it is nothing."""


def _sparse(path: Path) -> None:
    path.touch()
    os.truncate(path, SPARSE_BYTES)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        # A path of the tests may be longer than a socket's.
        here = os.open(path.parent, os.O_PATH)
        listener.bind(f"/proc/self/fd/{here}/{path.name}")
        os.close(here)


ODD: Mapping[str, Callable[[Path], None]] = {
    "pipe": os.mkfifo,
    "sparse": _sparse,
    "directory": Path.mkdir,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "socket": _socket,
}
"""What makes each, by its kind."""
