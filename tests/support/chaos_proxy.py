"""A proxy before an engine that does to its answers what networks and engines under load do."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path

_CHUNK = 4096
_BROKEN = (OSError, asyncio.IncompleteReadError)
_ERROR = b'{"message":"no space left on device"}'


@dataclass
class Chaos:
    """What becomes of requests whose target a `match` finds.

    `cut` gives the number of bytes of an answer after which the connection ends; `freeze` the same, after which
    nothing more comes though the connection stays; `fail` how many requests are answered with status 500.
    """

    match: Callable[[str], bool] = lambda _: False
    _: KW_ONLY
    cut: Callable[[], int] | None = None
    freeze: Callable[[], int] | None = None
    fail: int = 0
    hits: int = 0


@dataclass
class ChaosProxy:
    """Where to reach the engine through it."""

    address: str
    engine: Path
    chaos: Chaos = field(default_factory=Chaos)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Relay one connection."""
        chaos = self.chaos
        with suppress(*_BROKEN):
            head = await reader.readuntil(b"\r\n\r\n")
            hit = chaos.match(head.split(b" ")[1].decode())
            chaos.hits += hit
            if hit and chaos.fail:
                chaos.fail -= 1
                writer.write(b"HTTP/1.1 500 Internal Server Error\r\nContent-Type: application/json\r\n")
                writer.write(b"Content-Length: %d\r\nConnection: close\r\n\r\n" % len(_ERROR) + _ERROR)
                await writer.drain()
                return
            far_reader, far_writer = await asyncio.open_unix_connection(self.engine)
            try:
                far_writer.write(head)
                async with asyncio.TaskGroup() as ways:
                    asking = ways.create_task(_relay(reader, far_writer))
                    await self._answer(far_reader, writer, chaos if hit else Chaos())
                    asking.cancel()
            finally:
                far_writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, chaos: Chaos) -> None:
        left = chaos.cut() if chaos.cut else chaos.freeze() if chaos.freeze else None
        with suppress(*_BROKEN):
            while chunk := await reader.read(_CHUNK):
                writer.write(chunk if left is None else chunk[: max(left, 0)])
                await writer.drain()
                left = None if left is None else left - len(chunk)
                if left is not None and left <= 0:
                    if chaos.freeze is not None:
                        await asyncio.Event().wait()
                    return


@asynccontextmanager
async def chaos_proxy(directory: Path, engine: Path = Path("/var/run/docker.sock")) -> AsyncIterator[ChaosProxy]:
    """Serve the proxy at a socket in `directory`."""
    path = directory / "chaos.sock"
    proxy = ChaosProxy(f"unix://{path}", engine)
    connections: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            connections.add(task)
            task.add_done_callback(connections.discard)
        try:
            await proxy.serve(reader, writer)
        except asyncio.CancelledError:
            pass  # at the proxy's end only
        finally:
            writer.close()

    async with await asyncio.start_unix_server(serve, path):
        try:
            yield proxy
        finally:
            for task in connections:
                task.cancel()
            if connections:
                await asyncio.wait(connections)


async def _relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(*_BROKEN):
        while chunk := await reader.read(_CHUNK):
            writer.write(chunk)
            await writer.drain()
