"""A connection to a port inside a Pod, through the API server and the kubelet.

It needs no address that leads to the Pod and no NetworkPolicy that lets anybody in: the kubelet connects from inside,
so what listens at 127.0.0.1 is reached, and by nobody else. Of the two protocols that a cluster speaks for it this is
the one without SPDY: channel 0 is the data, channel 1 what went wrong, and each begins with the number of the port
(kubelet, `portforward/websocket.go`).
"""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from orchestrator.backends import kubernetes_api
from orchestrator.backends.http import BrokenError
from orchestrator.backends.kubernetes_api import Api
from orchestrator.backends.websocket import WebSocket, handshake

_PROTOCOL = "v4.channel.k8s.io"
_DATA, _ERROR = 0, 1
_PORT_BYTES = 2


@dataclass(slots=True)
class Forward:
    """A connection into a Pod."""

    _socket: WebSocket

    async def send(self, content: bytes) -> None:
        """Send bytes.

        Raises:
            BrokenError: the connection is gone.
        """
        await self._socket.send(bytes([_DATA]) + content)

    async def lines(self) -> AsyncGenerator[bytes]:
        """Give the lines that come, without their newlines; what follows the last newline is passed over.

        Raises:
            BrokenError: nobody listens there, or the connection broke.
        """
        begun: set[int] = set()
        rest: list[bytes] = []
        async for message in self._socket.messages():
            number, content = message[0] if message else _DATA, message[1:]
            if number not in begun:
                begun.add(number)
                content = content[_PORT_BYTES:]
            if number == _ERROR and content:
                raise BrokenError(content.decode(errors="replace").strip(), answered=True)
            if number != _DATA:
                continue
            *whole, tail = content.split(b"\n")
            for line in whole:
                yield b"".join((*rest, line))
                rest.clear()
            rest.append(tail)


@asynccontextmanager
async def forwarded(api: Api, namespace: str, pod: str, port: int) -> AsyncIterator[Forward]:
    """Connect to a port of a Pod.

    Raises:
        RefusalError: the cluster does not let us, or there is no such Pod.
        BrokenError: the API server cannot be reached.
    """
    path = kubernetes_api.pods(namespace, pod, "portforward")
    async with api.switched(path, {"ports": str(port)}, handshake(_PROTOCOL)) as (channel, early):
        yield Forward(WebSocket(channel, early))
