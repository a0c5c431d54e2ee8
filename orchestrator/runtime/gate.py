"""The Sandbox's side of the gate to its broker: it goes in before anything else runs, and stays in."""

import asyncio
import os
import sys
from pathlib import Path

from orchestrator.wire.link import GATE_NAME, SOCKET_NAME

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Gate:
    """The way to the broker's socket, which is shut for everybody once this Sandbox has come in.

    Whoever holds this goes on: it keeps the socket's directory open, and the way to that is not looked at again.
    """

    def __init__(self, state: Path) -> None:
        self._path = state / GATE_NAME / SOCKET_NAME
        self._directory: int | None = None

    async def prove(self) -> None:
        """Take it that there is no other way out: a Sandbox with a gate has no network."""

    async def watch(self) -> None:
        """Wait for ever: what has no network gets none."""
        await asyncio.Event().wait()

    async def dial(self) -> Connection:
        """Connect to the broker, however long the path to its socket.

        Raises:
            OSError: nobody listens.
        """
        if sys.platform != "linux":
            return await asyncio.open_unix_connection(self._path)
        if self._directory is None:
            self._directory = os.open(self._path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        return await asyncio.open_unix_connection(f"/proc/self/fd/{self._directory}/{self._path.name}")

    def close(self) -> None:
        """Let go of it."""
        if self._directory is not None:
            os.close(self._directory)
            self._directory = None
