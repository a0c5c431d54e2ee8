"""A script's connection to its broker: the socket in the state directory, and frames over it."""

import asyncio
import os
import sys
from pathlib import Path
from typing import TypeVar

from msgspec.json import Decoder

from orchestrator.wire import frames
from orchestrator.wire.frozen import Frozen
from orchestrator.wire.layout import SOCKET_DIRECTORY_NAME, SOCKET_NAME

PATIENCE = 5.0
"""Seconds that a script waits for a broker that does not listen."""

_PAUSE = 0.005
BROKEN = (OSError, asyncio.IncompleteReadError)
"""What is raised where a broker goes away."""

Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]
T = TypeVar("T")


class BrokerLeftError(Exception):
    """The broker closed the connection, or does not listen."""


class BrokerDialer:
    """Connects to the broker of the Sandbox with this state directory."""

    def __init__(self, state: Path) -> None:
        self._path = state / SOCKET_DIRECTORY_NAME / SOCKET_NAME
        self._directory: int | None = None

    async def dial(self) -> Stream:
        """Connect; as in the runtime, a broker may be away for a while, and come back.

        Raises:
            BrokerLeftError: it stays away.
        """
        clock = asyncio.get_running_loop().time
        deadline = clock() + PATIENCE
        while True:
            try:
                return await self._connection()
            except OSError as error:
                if clock() > deadline:
                    raise _broker_left(error) from error
            await asyncio.sleep(_PAUSE)

    def close(self) -> None:
        """Release the directory."""
        if self._directory is not None:
            os.close(self._directory)
            self._directory = None

    async def _connection(self) -> Stream:
        if sys.platform != "linux":
            # No path leads through a descriptor there, so a script cannot reconnect once the broker has sealed it.
            return await asyncio.open_unix_connection(self._path)
        if self._directory is None:
            # Kept open like the runtime's: the broker seals it once its Sandbox has connected.
            self._directory = os.open(self._path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        return await asyncio.open_unix_connection(f"/proc/self/fd/{self._directory}/{self._path.name}")


async def exchange(stream: Stream, frame: Frozen | None, decoder: Decoder[T]) -> T:
    """Send a frame, if there is one, and read the next.

    Raises:
        BrokerLeftError: the broker went away.
    """
    reader, writer = stream
    try:
        if frame is not None:
            writer.write(frames.frame(frame))
            await writer.drain()
        return await frames.read_frame(reader, decoder)
    except BROKEN as error:
        raise _broker_left(error) from error


def _broker_left(error: BaseException) -> BrokerLeftError:
    return BrokerLeftError(f"the broker is gone ({type(error).__name__})")
