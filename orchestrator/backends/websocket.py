"""The little of WebSocket (RFC 6455) that a connection into a Pod needs: binary messages, answers to pings, an end."""

import asyncio
import base64
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass

from orchestrator.backends.http import BrokenError, Channel

_BINARY, _CLOSE, _PING, _PONG = 0x2, 0x8, 0x9, 0xA
_CONTROL = 0x8
_LAST, _MASKED = 0x80, 0x80
_SHORT, _MEDIUM, _LONG = 125, 126, 127
_MOST_BYTES = 16 * 1024 * 1024


def handshake(protocol: str) -> dict[str, str]:
    """Give the headers that ask for a WebSocket of a protocol."""
    return {
        "Accept": "*/*",
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": base64.b64encode(secrets.token_bytes(16)).decode(),
        "Sec-WebSocket-Protocol": protocol,
    }


def frame(content: bytes, kind: int = _BINARY) -> bytes:
    """Write a message as a client does: whole, and masked (RFC 6455, 5.3)."""
    size = len(content)
    if size <= _SHORT:
        head = bytes([_LAST | kind, _MASKED | size])
    elif size < 1 << 16:
        head = bytes([_LAST | kind, _MASKED | _MEDIUM]) + size.to_bytes(2, "big")
    else:
        head = bytes([_LAST | kind, _MASKED | _LONG]) + size.to_bytes(8, "big")
    mask = secrets.token_bytes(4)
    return head + mask + _masked(content, mask)


def _masked(content: bytes, mask: bytes) -> bytes:
    repeated = (mask * (len(content) // 4 + 1))[: len(content)]
    return (int.from_bytes(content, "big") ^ int.from_bytes(repeated, "big")).to_bytes(len(content), "big")


@dataclass(slots=True)
class WebSocket:
    """A connection that has become a WebSocket; `early` is what had come of it by then."""

    channel: Channel
    early: bytes = b""

    async def send(self, content: bytes) -> None:
        """Send a binary message.

        Raises:
            BrokenError: the other side is gone.
        """
        try:
            self.channel.writer.write(frame(content))
            await self.channel.writer.drain()
        except OSError as error:
            message = "the connection broke"
            raise BrokenError(message, answered=True) from error

    async def messages(self) -> AsyncIterator[bytes]:
        """Give the messages that come, until the other side ends them.

        Raises:
            BrokenError: the connection ended otherwise, or what comes is no WebSocket.
        """
        parts: list[bytes] = []
        while True:
            last, kind, content = await self._frame()
            if kind == _CLOSE:
                return
            if kind == _PING:
                self.channel.writer.write(frame(content, _PONG))
            if kind & _CONTROL:
                continue
            parts.append(content)
            if sum(map(len, parts)) > _MOST_BYTES:
                message = "a message is too long"
                raise BrokenError(message, answered=True)
            if last:
                yield b"".join(parts)
                parts.clear()

    async def _frame(self) -> tuple[bool, int, bytes]:
        first, second = await self._read(2)
        size = second & ~_MASKED
        if size == _MEDIUM:
            size = int.from_bytes(await self._read(2), "big")
        elif size == _LONG:
            size = int.from_bytes(await self._read(8), "big")
        if second & _MASKED or size > _MOST_BYTES:
            message = "what comes is no WebSocket"
            raise BrokenError(message, answered=True)
        return bool(first & _LAST), first & 0x0F, await self._read(size)

    async def _read(self, size: int) -> bytes:
        taken, self.early = self.early[:size], self.early[size:]
        try:
            return taken + await self.channel.reader.readexactly(size - len(taken))
        except (OSError, asyncio.IncompleteReadError) as error:
            message = "it hung up"
            raise BrokenError(message, answered=True) from error
