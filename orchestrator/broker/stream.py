"""The host's end of one connection."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any, Literal

from orchestrator.wire.frozen import Frozen
from orchestrator.wire.link import frame

Kind = Literal["reasoning", "text"]


class Stream:
    """One connection of a Sandbox: frames go out whole, one after the other."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self._turn = asyncio.Lock()

    async def send(self, value: Frozen) -> None:
        """Send a frame, waiting while the other end is slow. If it is gone, nothing happens: it will ask again.

        Raises:
            WireError: the frame would be too large.
        """
        body = frame(value)
        async with self._turn:
            if self.writer.is_closing():
                return
            with suppress(OSError):
                self.writer.write(body)
                await self.writer.drain()

    def end(self) -> None:
        """Say that nothing more will come; over TLS one direction cannot end without the other."""
        if self.writer.can_write_eof():
            self.writer.write_eof()
        else:
            self.writer.close()

    async def close(self) -> None:
        """Close the connection once what was written is gone."""
        self.writer.close()
        with suppress(OSError):
            await self.writer.wait_closed()

    def drop(self) -> None:
        """Let go of what was written and has not left; where the other end does not read, closing waits for it."""
        if self.writer.transport.get_write_buffer_size():
            self.abort()

    def abort(self) -> None:
        """Close the connection now."""
        self.writer.transport.abort()


class Pieces:
    """Pieces of a reply on their way to a reader that may be slow: neighbours of one kind are joined meanwhile."""

    def __init__(self) -> None:
        self._waiting: list[tuple[Kind, list[str]]] = []
        self._changed = asyncio.Event()
        self._over = False

    def add(self, kind: Kind, text: str) -> None:
        """Take one piece; never waits."""
        if self._waiting and self._waiting[-1][0] == kind:
            self._waiting[-1][1].append(text)
        else:
            self._waiting.append((kind, [text]))
        self._changed.set()

    def end(self, *_: Any) -> None:
        """Say that no more will come."""
        self._over = True
        self._changed.set()

    async def __aiter__(self) -> AsyncIterator[tuple[Kind, str]]:
        while not self._over or self._waiting:
            await self._changed.wait()
            self._changed.clear()
            waiting, self._waiting = self._waiting, []
            for kind, texts in waiting:
                yield kind, "".join(texts)
