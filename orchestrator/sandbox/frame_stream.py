"""The host's end of one connection."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any, Literal

from orchestrator.wire.frames import frame
from orchestrator.wire.frozen import Frozen

Kind = Literal["reasoning", "text"]


class FrameStream:
    """One connection of a Sandbox: frames are sent whole, one after the other."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self._send_lock = asyncio.Lock()

    async def send(self, value: Frozen) -> None:
        """Send a frame; wait while the other end is slow. If the other end is gone, do nothing: it will ask again.

        Raises:
            WireError: the frame would be too large.
        """
        body = frame(value)
        async with self._send_lock:
            if self.writer.is_closing():
                return
            with suppress(OSError):
                self.writer.write(body)
                await self.writer.drain()

    def end(self) -> None:
        """End this direction; over TLS that ends the other one too."""
        if self.writer.can_write_eof():
            self.writer.write_eof()
        else:
            self.writer.close()

    async def close(self) -> None:
        """Close the connection once all written bytes were sent."""
        self.writer.close()
        with suppress(OSError):
            await self.writer.wait_closed()

    def drop(self) -> None:
        """Drop written bytes that were not sent yet; if the other end does not read, closing would wait for it."""
        if self.writer.transport.get_write_buffer_size():
            self.abort()

    def abort(self) -> None:
        """Close the connection now."""
        self.writer.transport.abort()


class DeltaBuffer:
    """Pieces of a reply for a reader that may be slow: adjacent pieces of one kind are joined meanwhile."""

    def __init__(self) -> None:
        self._waiting: list[tuple[Kind, list[str]]] = []
        self._changed = asyncio.Event()
        self._is_closed = False

    def add(self, kind: Kind, text: str) -> None:
        """Add one piece; never waits."""
        if self._waiting and self._waiting[-1][0] == kind:
            self._waiting[-1][1].append(text)
        else:
            self._waiting.append((kind, [text]))
        self._changed.set()

    def end(self, *_: Any) -> None:
        """Mark the end of the pieces."""
        self._is_closed = True
        self._changed.set()

    async def __aiter__(self) -> AsyncIterator[tuple[Kind, str]]:
        while not self._is_closed or self._waiting:
            await self._changed.wait()
            self._changed.clear()
            waiting, self._waiting = self._waiting, []
            for kind, texts in waiting:
                yield kind, "".join(texts)
