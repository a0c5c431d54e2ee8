"""A machine that answers every client: `public_server.py DIRECTORY LOG`, at all addresses of its network.

HTTPS for every name that its certificate has, HTTP, and DNS, which has one address for every name. Each name that a
client requested is a line of LOG.
"""

import asyncio
import ssl
import sys
from functools import partial
from pathlib import Path
from typing import cast

_ANYWHERE = ("0.0.0.0", "::")  # noqa: S104 - of its own network namespace
_OF_DOCKER = "127.0.0.11"
"""Where Docker puts a name server; a server must answer from the loopback address to which a query was sent."""
_HEADER = 12
_A = b"\0\x01"


def main() -> None:
    """Serve until killed."""
    directory, log = Path(sys.argv[1]), Path(sys.argv[2])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "cert.pem", directory / "key.pem")

    def asked(_connection: ssl.SSLObject, name: str | None, _context: ssl.SSLContext) -> None:
        _write(log, str(name))

    context.sni_callback = asked
    asyncio.run(_serve(context, log))


async def _serve(context: ssl.SSLContext, log: Path) -> None:
    loop = asyncio.get_running_loop()
    for address in _ANYWHERE:
        await asyncio.start_server(partial(_answer, b"outside"), address, 443, ssl=context)
        await asyncio.start_server(partial(_answer, b"metadata"), address, 80)
    for address in ("::", _OF_DOCKER):  # the first of both families
        await loop.create_datagram_endpoint(partial(_Dns, log), (address, 53), reuse_port=True)
    print("ready", flush=True)  # noqa: T201 - the caller waits for it
    await asyncio.Event().wait()


async def _answer(body: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        await reader.readuntil(b"\r\n\r\n")
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode()
        writer.write(head + body)
        await writer.drain()
    except (OSError, EOFError):
        pass  # The client has read enough.
    finally:
        writer.close()


class _Dns(asyncio.DatagramProtocol):
    """Answers every question (RFC 1035 4) with the address 45.64.0.2."""

    def __init__(self, log: Path) -> None:
        self._log = log

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        labels, at = [], _HEADER
        while (size := data[at]) != 0:
            labels.append(data[at + 1 : at + 1 + size].decode())
            at += 1 + size
        question = data[_HEADER : at + 5]
        _write(self._log, ".".join(labels))
        found = b"\xc0\x0c\0\x01\0\x01\0\0\0\0\0\x04\x2d\x40\0\x02" if question[-4:-2] == _A else b""
        counts = b"\0\x01" + (b"\0\x01" if found else b"\0\0") + b"\0\0\0\0"
        self._transport.sendto(data[:2] + b"\x81\x80" + counts + question + found, addr)


def _write(log: Path, name: str) -> None:
    with log.open("a") as file:
        file.write(f"{name}\n")


main()
