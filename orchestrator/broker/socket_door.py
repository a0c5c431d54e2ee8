"""A unix socket behind a gate in each Sandbox's state directory: who gets there is that Sandbox."""

import asyncio
import os
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from orchestrator.broker.gate import shut, socket_in
from orchestrator.broker.session import Session
from orchestrator.disk.deletion import delete
from orchestrator.errors import BackendError
from orchestrator.sandbox import User

_SOCKET_PATH_BYTES = 107
BUFFER_BYTES = 1024 * 1024
"""How much of a connection is read ahead."""


class SocketDoor:
    """Sockets that are made before their Sandboxes and are gone after them."""

    address = None

    def shut(self, state: Path) -> None:
        """Let nobody in any more who is not in already."""
        shut(state)

    @asynccontextmanager
    async def admit(self, name: str, state: Path, user: User, session: Session) -> AsyncIterator[None]:
        """Open the socket of a Sandbox in its state directory.

        Raises:
            BackendError: the socket cannot be made there.
        """
        del name
        with socket_in(state) as path, _bind(path, user) as listener:
            server = await asyncio.start_unix_server(session.accept, sock=listener, limit=BUFFER_BYTES)
            try:
                yield
            finally:
                server.close()


def _bind(path: Path, user: User) -> socket.socket:
    """Make the socket, for `user` alone, in place of what bears its name."""
    size = len(os.fsencode(path))
    if size > _SOCKET_PATH_BYTES:
        message = (
            f"the path of socket {path} has {size} bytes, more than the {_SOCKET_PATH_BYTES} that the system takes; "
            "choose a shorter state directory"
        )
        raise BackendError(message)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if sys.platform == "linux":
            # What bears its name gets its mode. A umask would hold for files that other threads make meanwhile, too.
            os.fchmod(listener.fileno(), 0o600)
        # A Sandbox that is taken up again may have put anything there since: nothing is followed.
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
