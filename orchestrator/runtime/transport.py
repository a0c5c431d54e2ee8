"""The transport between a Sandbox and its broker, and the one over the unix socket in the socket directory.

The socket directory is entered before anything else runs, and kept open.
"""

import asyncio
import os
import sys
from pathlib import Path
from typing import Protocol

from orchestrator.wire.layout import SOCKET_DIRECTORY_NAME, SOCKET_NAME

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class NotAdmittedError(OSError):
    """The broker does not admit this Sandbox; a later attempt may succeed."""


class NoListenerError(OSError):
    """Nothing listens at the broker's unix socket, or the engine does not share it."""


class Transport(Protocol):
    """How a Sandbox reaches its broker.

    It uses a unix socket whose directory is sealed afterwards, or a network that leads only there.
    """

    async def verify_isolation(self) -> None:
        """Verify that nothing else can be reached, before the first use.

        Raises:
            NetworkOpenError: another address can be reached.
            OSError: the broker is unreachable.
        """

    async def verify_isolation_forever(self) -> None:
        """Verify at an interval, 60 s by default, that nothing else can be reached; never return.

        Raises:
            NetworkOpenError: another address can be reached.
        """

    async def connect(self) -> Connection:
        """Open a connection.

        Raises:
            OSError, asyncio.IncompleteReadError: the broker is unreachable, or closed the connection.
            NotAdmittedError: the broker does not admit this Sandbox.
        """

    def close(self) -> None:
        """Release its resources."""


class UnixTransport:
    """The transport over the broker's unix socket. Its directory is closed once this Sandbox has connected.

    This object keeps the socket's directory open, so that it can reconnect without resolving the path again.
    """

    def __init__(self, state: Path) -> None:
        self._path = state / SOCKET_DIRECTORY_NAME / SOCKET_NAME
        self._directory: int | None = None

    async def verify_isolation(self) -> None:
        """Do nothing: a Sandbox with a socket directory has no network."""

    async def verify_isolation_forever(self) -> None:
        """Wait forever: a Sandbox without a network cannot get one."""
        await asyncio.Event().wait()

    async def connect(self) -> Connection:
        """Connect to the broker, even if the path of its socket is longer than an address may be.

        Raises:
            NoListenerError: no broker listens.
        """
        try:
            if sys.platform != "linux":
                return await asyncio.open_unix_connection(self._path)
            if self._directory is None:
                self._directory = os.open(self._path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            return await asyncio.open_unix_connection(f"/proc/self/fd/{self._directory}/{self._path.name}")
        except (FileNotFoundError, ConnectionRefusedError) as error:
            message = f"{type(error).__name__}: {error}"
            raise NoListenerError(message) from error

    def close(self) -> None:
        """Close the socket's directory."""
        if self._directory is not None:
            os.close(self._directory)
            self._directory = None
