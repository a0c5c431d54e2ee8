"""A connection that has become a WebSocket, for binary messages."""

import base64
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Event, Ping
from wsproto.utilities import RemoteProtocolError

from orchestrator.backends.http import BrokenError, Channel

_CHUNK = 64 * 1024
_MOST_BYTES = 16 * 1024 * 1024
_GONE, _TOO_LONG, _STRANGE = "it hung up", "a message is too long", "what comes is no WebSocket"


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


@dataclass(slots=True)
class WebSocket:
    """What goes and comes by a channel on which the handshake is done; `early` is what had come behind it by then."""

    channel: Channel
    early: bytes = b""
    _frames: Connection = field(init=False)

    def __post_init__(self) -> None:
        """Begin with what is there."""
        self._frames = Connection(ConnectionType.CLIENT, trailing_data=self.early)

    async def send(self, content: bytes) -> None:
        """Send a binary message.

        Raises:
            BrokenError: the other side is gone.
        """
        await self._send(BytesMessage(data=content))

    async def messages(self) -> AsyncIterator[bytes]:
        """Give the messages that come, until the other side ends them.

        Raises:
            BrokenError: the connection ended otherwise, or what comes is no WebSocket.
        """
        message = bytearray()
        while True:
            for event in self._events():
                match event:
                    case CloseConnection():
                        return
                    case Ping():
                        await self._send(event.response())
                    case BytesMessage():
                        message += event.data
                        if len(message) > _MOST_BYTES:
                            raise BrokenError(_TOO_LONG, answered=True)
                        if event.message_finished:
                            yield bytes(message)
                            message.clear()
            await self._receive()

    def _events(self) -> list[Event]:
        try:
            return list(self._frames.events())
        except RemoteProtocolError as error:
            raise BrokenError(_STRANGE, answered=True) from error

    async def _send(self, event: Event) -> None:
        try:
            self.channel.writer.write(self._frames.send(event))
            await self.channel.writer.drain()
        except OSError as error:
            raise BrokenError(_GONE, answered=True) from error

    async def _receive(self) -> None:
        try:
            content = await self.channel.reader.read(_CHUNK)
        except OSError as error:
            raise BrokenError(_GONE, answered=True) from error
        if not content:
            raise BrokenError(_GONE, answered=True)
        self._frames.receive_data(content)
