"""A unix socket in the socket directory of each Sandbox's state directory: only that Sandbox can reach it."""

import asyncio
import os
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from orchestrator.broker.session import Session
from orchestrator.disk.deletion import delete
from orchestrator.errors import BackendError
from orchestrator.sandbox.api import User
from orchestrator.sandbox.socket_directory import seal, socket_path

_SOCKET_PATH_BYTES = 103 if sys.platform == "darwin" else 107
BUFFER_BYTES = 1024 * 1024
"""How much of a connection is read ahead."""


class UnixListener:
    """Sockets that are created before their Sandboxes and removed after them."""

    address = None

    def seal(self, state: Path) -> None:
        """Allow no new connection."""
        seal(state)

    @asynccontextmanager
    async def register(self, name: str, state: Path, user: User, session: Session) -> AsyncIterator[None]:
        """Open the socket of a Sandbox in its state directory.

        Raises:
            BackendError: the socket cannot be made there.
        """
        del name
        with socket_path(state) as path, _bind(path, user) as listener:
            server = await asyncio.start_unix_server(session.accept, sock=listener, limit=BUFFER_BYTES)
            try:
                yield
            finally:
                server.close()


def _bind(path: Path, user: User) -> socket.socket:
    """Create the socket, for `user` alone; it replaces any file of that name."""
    size = len(os.fsencode(path))
    if size > _SOCKET_PATH_BYTES:
        message = (
            f"the path of socket {path} has {size} bytes, more than the system's limit of {_SOCKET_PATH_BYTES}; "
            "choose a shorter state directory"
        )
        raise BackendError(message)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if sys.platform == "linux":
            # The socket file gets this mode. A umask would also apply to files that other threads create meanwhile.
            os.fchmod(listener.fileno(), 0o600)
        # A Sandbox that was reattached may have put any file here since: no link is followed.
        delete(path)
        listener.bind(os.fspath(path))
        if os.geteuid() == 0:
            os.chown(path, user.uid, user.gid, follow_symlinks=False)
    except OSError as error:
        listener.close()
        message = (
            f"the broker's socket {path} could not be made: {error.strerror}; look at its directory's space and mode"
        )
        raise BackendError(message) from error
    return listener
