"""A connection that has become a WebSocket, for binary messages."""

import base64
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from wsproto.connection import Connection as Frames
from wsproto.connection import ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Event, Ping
from wsproto.utilities import RemoteProtocolError

from orchestrator.http.connection import Connection
from orchestrator.http.errors import ConnectionBrokenError

_CHUNK = 64 * 1024
_MESSAGE_BYTES = 16 * 1024 * 1024
_CLOSED, _TOO_LONG = "the server closed the WebSocket's connection", "a message is too long"
_STRANGE = "what the server sends is not WebSocket"


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
    """Messages over a connection on which the handshake is done; `early` is what had arrived after it by then."""

    connection: Connection
    early: bytes = b""
    _frames: Frames = field(init=False)

    def __post_init__(self) -> None:
        """Begin with what is there."""
        self._frames = Frames(ConnectionType.CLIENT, trailing_data=self.early)

    async def send(self, content: bytes) -> None:
        """Send a binary message.

        Raises:
            ConnectionBrokenError: the connection is closed.
        """
        await self._send(BytesMessage(data=content))

    async def messages(self) -> AsyncIterator[bytes]:
        """Give the messages that come, until the server ends them.

        Raises:
            ConnectionBrokenError: the connection ended otherwise, or what comes is not WebSocket.
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
                        if len(message) > _MESSAGE_BYTES:
                            raise ConnectionBrokenError(_TOO_LONG, answered=True)
                        if event.message_finished:
                            yield bytes(message)
                            message.clear()
            await self._receive()

    def _events(self) -> list[Event]:
        try:
            return list(self._frames.events())
        except RemoteProtocolError as error:
            raise ConnectionBrokenError(_STRANGE, answered=True) from error

    async def _send(self, event: Event) -> None:
        try:
            self.connection.writer.write(self._frames.send(event))
            await self.connection.writer.drain()
        except OSError as error:
            raise ConnectionBrokenError(_CLOSED, answered=True) from error

    async def _receive(self) -> None:
        try:
            content = await self.connection.reader.read(_CHUNK)
        except OSError as error:
            raise ConnectionBrokenError(_CLOSED, answered=True) from error
        if not content:
            raise ConnectionBrokenError(_CLOSED, answered=True)
        self._frames.receive_data(content)
