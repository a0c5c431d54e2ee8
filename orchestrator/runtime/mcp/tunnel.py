"""A TLS connection through a proxy on this machine (CONNECT, RFC 9110 9.3.6)."""

import asyncio
import base64
import re
import socket
import ssl

from orchestrator.runtime.mcp.http1 import Streams

_HEAD_BYTES = 8 * 1024
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([0-9]{3}) ?([^\r\n]*)")


async def connect_through(
    proxy_port: int, credential: str, host: str, context: ssl.SSLContext, port: int = 443
) -> Streams:
    """Connect to `host` through the proxy at 127.0.0.1 whose password is `credential`.

    Raises:
        OSError: the proxy refused, with its reason; or the server's certificate is not valid.
    """
    loop = asyncio.get_running_loop()
    connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        connection.setblocking(False)  # noqa: FBT003 - socket has no name for it
        await loop.sock_connect(connection, ("127.0.0.1", proxy_port))
        await loop.sock_sendall(connection, _request(f"{host}:{port}", credential))
        _require_tunnel(await _head(connection))
        return await asyncio.open_connection(sock=connection, ssl=context, server_hostname=host)
    except BaseException:
        connection.close()
        raise


def _request(address: str, credential: str) -> bytes:
    password = base64.b64encode(f"x:{credential}".encode()).decode("ascii")
    fields = (f"CONNECT {address} HTTP/1.1", f"Host: {address}", f"Proxy-Authorization: Basic {password}", "", "")
    return "\r\n".join(fields).encode("ascii")


async def _head(connection: socket.socket) -> bytes:
    """The proxy's reply. Nothing can follow it: the server sends nothing before this client does."""
    head = b""
    while b"\r\n\r\n" not in head and len(head) < _HEAD_BYTES:
        piece = await asyncio.get_running_loop().sock_recv(connection, _HEAD_BYTES)
        if not piece:
            break
        head += piece
    return head


def _require_tunnel(head: bytes) -> None:
    found = _STATUS_LINE.match(head)
    if found is None:
        message = "the proxy of this Sandbox closed the connection"
        raise OSError(message)
    if not found[1].startswith(b"2"):
        message = f"{found[1].decode('ascii')} {found[2].decode('ascii', 'ignore')}"
        raise OSError(message)
