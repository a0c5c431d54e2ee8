"""An HTTPS server for every name that its certificate has: `public_server.py DIRECTORY ADDRESS`."""

import asyncio
import ssl
import sys
from pathlib import Path


def main() -> None:
    """Serve until killed; each name that a client asks for is written down."""
    directory, address = Path(sys.argv[1]), sys.argv[2]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "cert.pem", directory / "key.pem")

    def asked(_connection: ssl.SSLObject, name: str | None, _context: ssl.SSLContext) -> None:
        with (directory / "asked").open("a") as log:
            log.write(f"{name}\n")

    context.sni_callback = asked
    asyncio.run(serve(context, address))


async def serve(context: ssl.SSLContext, address: str) -> None:
    """Answer every request with the name that was asked for."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\nConnection: close\r\n\r\noutside")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, address, 443, ssl=context)
    print("ready", flush=True)  # noqa: T201 - to whoever waits for it
    await server.serve_forever()


main()
