"""Sandboxes as their broker sees them, without containers: each connects, sends its name and waits for its Run.

python -m bench.guests PORT takes a name a line from stdin, until that ends.
"""

import asyncio
import ssl
import sys

from orchestrator.http.dial import dial
from orchestrator.tls import Tls
from orchestrator.wire import frames

_AT_ONCE = 16
_BYTES = 64 * 1024


async def attend(tls: Tls, port: int, name: str, turns: asyncio.Semaphore) -> None:
    """Come in, and stay until the broker hangs up."""
    async with turns:
        reader, writer = await tls.connect(await dial("127.0.0.1", port), "broker")
        writer.write(frames.frame(frames.Identify(token=name)))
        await frames.read_frame(reader, frames.OPENED)
        writer.write(frames.frame(frames.Attach()))
    try:
        await reader.read()
    finally:
        writer.transport.abort()


async def main(port: int) -> None:
    """Attend under each name that is read."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    tls = Tls(context, _BYTES)
    names, turns = asyncio.StreamReader(), asyncio.Semaphore(_AT_ONCE)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(names), sys.stdin)
    async with asyncio.TaskGroup() as tasks:
        async for name in names:
            tasks.create_task(attend(tls, port, name.decode().strip(), turns))


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
