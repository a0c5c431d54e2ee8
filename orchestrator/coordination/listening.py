"""Where watchers connect to: a port at 127.0.0.1, which only the kubelet leads to."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress

from orchestrator.coordination.messages import PORT, Follow, read_follow
from orchestrator.errors import BackendUnavailableError, WireError

_ASKING_SECONDS = 10.0
_LEAVING_SECONDS = 10.0
"""How long watchers have to take what is left, once all is said."""


@asynccontextmanager
async def listening(told: Callable[[Follow], AsyncIterator[bytes]], port: int = PORT) -> AsyncIterator[None]:
    """Tell whoever connects what `told` gives; left, it waits a while until all have it.

    Raises:
        BackendUnavailableError: the port is taken.
    """
    watchers: set[asyncio.Task[None]] = set()

    def welcome(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(_tell(told, reader, writer))
        watchers.add(task)
        task.add_done_callback(watchers.discard)

    async with AsyncExitStack() as stack:
        try:
            server = await asyncio.start_server(welcome, "127.0.0.1", port)
        except OSError as error:
            message = f"nobody can watch this coordinator: port {port} at 127.0.0.1: {error.strerror}"
            raise BackendUnavailableError(message) from error
        stack.callback(server.close)
        # Some runtimes connect to ::1, where there is one.
        with suppress(OSError):
            stack.callback((await asyncio.start_server(welcome, "::1", port)).close)
        try:
            yield
            if watchers:
                await asyncio.wait(watchers, timeout=_LEAVING_SECONDS)
        finally:
            for task in watchers:
                task.cancel()
            if watchers:
                await asyncio.wait(watchers)


async def _tell(
    told: Callable[[Follow], AsyncIterator[bytes]], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    with suppress(OSError, TimeoutError, WireError):
        try:
            async with asyncio.timeout(_ASKING_SECONDS):
                follow = read_follow(await reader.readline())
            async for line in told(follow):
                writer.write(line)
                await writer.drain()
            # What is on its way is lost with the Pod's network: wait until the watcher has it and hangs up.
            async with asyncio.timeout(_LEAVING_SECONDS):
                await reader.read()
        finally:
            writer.transport.abort()
