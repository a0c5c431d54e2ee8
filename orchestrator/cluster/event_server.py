"""The port that watchers connect to, at 127.0.0.1: only the kubelet's port-forward reaches it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress

from orchestrator.cluster.protocol import PORT, Subscribe, read_subscribe
from orchestrator.errors import BackendUnavailableError, WireError

_REQUEST_SECONDS = 10.0
_CLOSING_SECONDS = 10.0
"""How long watchers have to receive the rest, once all is sent."""


@asynccontextmanager
async def serve_events(lines: Callable[[Subscribe], AsyncIterator[bytes]], port: int = PORT) -> AsyncIterator[None]:
    """Send every client the `lines` for its request; when the block is left, wait a while until all clients have them.

    Raises:
        BackendUnavailableError: the port is taken.
    """
    watchers: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(_serve(lines, reader, writer))
        watchers.add(task)
        task.add_done_callback(watchers.discard)

    async with AsyncExitStack() as stack:
        try:
            server = await asyncio.start_server(accept, "127.0.0.1", port)
        except OSError as error:
            message = f"this coordinator cannot be watched: port {port} at 127.0.0.1: {error.strerror}"
            raise BackendUnavailableError(message) from error
        stack.callback(server.close)
        # Some container runtimes connect to ::1 if it exists.
        with suppress(OSError):
            stack.callback((await asyncio.start_server(accept, "::1", port)).close)
        try:
            yield
            if watchers:
                await asyncio.wait(watchers, timeout=_CLOSING_SECONDS)
        finally:
            for task in watchers:
                task.cancel()
            if watchers:
                await asyncio.wait(watchers)


async def _serve(
    lines: Callable[[Subscribe], AsyncIterator[bytes]], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    with suppress(OSError, TimeoutError, WireError):
        try:
            async with asyncio.timeout(_REQUEST_SECONDS):
                follow = read_subscribe(await reader.readline())
            async for line in lines(follow):
                writer.write(line)
                await writer.drain()
            # Data in transit is lost with the Pod's network: wait until the watcher has it and hangs up.
            async with asyncio.timeout(_CLOSING_SECONDS):
                await reader.read()
        finally:
            writer.transport.abort()
