"""A Sandbox as the broker sees it: its end of the socket, frame by frame."""

import asyncio
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from msgspec.json import Decoder

from orchestrator.wire import frames
from orchestrator.wire.frozen import Frozen

SECONDS = 5

T = TypeVar("T")


class Guest:
    """One connection to a broker's socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def connect(cls, socket: Path) -> Self:
        """Connect to a broker's socket."""
        return cls(*await asyncio.open_unix_connection(socket))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.writer.close()
        with suppress(OSError):
            await self.writer.wait_closed()

    def send(self, value: Frozen) -> None:
        """Send one frame."""
        self.writer.write(frames.frame(value))

    async def read(self, shape: type[T]) -> T:
        """Read one frame of a shape."""
        async with asyncio.timeout(SECONDS):
            return await frames.read_frame(self.reader, Decoder(shape))

    async def answer(self) -> frames.Answer:
        """Read the next answer to a call that is not a piece of a reply."""
        while True:
            async with asyncio.timeout(SECONDS):
                answer = await frames.read_frame(self.reader, frames.ANSWER)
            if not isinstance(answer, frames.Delta):
                return answer

    async def ask(self, call: Frozen) -> frames.Answer:
        """Send a call and read its answer."""
        self.send(call)
        return await self.answer()

    async def open(self, opening: Frozen) -> str | None:
        """Open with a frame that Opened answers; give why it was refused."""
        self.send(opening)
        return (await self.read(frames.TunnelReply)).refused

    async def ended(self) -> bytes:
        """Wait until the broker has closed the connection; give what it sent before."""
        async with asyncio.timeout(SECONDS):
            try:
                return await self.reader.read()
            except ConnectionResetError:
                return b""
