"""A connection to a port inside a Pod, through the API server and the kubelet.

It needs no address that leads to the Pod and no NetworkPolicy that allows ingress: the kubelet connects from inside,
so it reaches a server at 127.0.0.1, and no other client can. Of the cluster's two protocols for this, it uses the one
without SPDY: channel 0 is the data, channel 1 the errors, and each begins with the number of the port
(kubelet, `portforward/websocket.go`).
"""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from orchestrator.backends.kubernetes import client
from orchestrator.backends.kubernetes.client import KubernetesClient
from orchestrator.http.errors import ConnectionBrokenError
from orchestrator.http.websocket import WebSocket, handshake

_PROTOCOL = "v4.channel.k8s.io"
_DATA, _ERROR = 0, 1
_PORT_BYTES = 2


@dataclass(slots=True)
class PortForward:
    """A connection into a Pod."""

    _socket: WebSocket

    async def send(self, content: bytes) -> None:
        """Send bytes.

        Raises:
            ConnectionBrokenError: the connection is gone.
        """
        await self._socket.send(bytes([_DATA]) + content)

    async def lines(self) -> AsyncGenerator[bytes]:
        """Yield the received lines without their newlines; bytes after the last newline are dropped.

        Raises:
            ConnectionBrokenError: no process listens there, or the connection broke.
        """
        begun: set[int] = set()
        rest: list[bytes] = []
        async for message in self._socket.messages():
            channel, content = message[0] if message else _DATA, message[1:]
            if channel not in begun:
                begun.add(channel)
                content = content[_PORT_BYTES:]
            if channel == _ERROR and content:
                raise ConnectionBrokenError(content.decode(errors="replace").strip(), answered=True)
            if channel != _DATA:
                continue
            *whole, tail = content.split(b"\n")
            for line in whole:
                yield b"".join((*rest, line))
                rest.clear()
            rest.append(tail)


@asynccontextmanager
async def forward_port(api: KubernetesClient, namespace: str, pod: str, port: int) -> AsyncIterator[PortForward]:
    """Connect to a port of a Pod.

    Raises:
        StatusError: the cluster refuses it, or no such Pod exists.
        ConnectionBrokenError: the API server cannot be reached.
    """
    path = client.pods(namespace, pod, "portforward")
    # `early` is what the server sent together with its response to the handshake.
    async with api.upgrade(path, {"ports": str(port)}, handshake(_PROTOCOL)) as (connection, early):
        yield PortForward(WebSocket(connection, early))
