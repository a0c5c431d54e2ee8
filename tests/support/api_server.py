"""An API server on a socket with answers that the test chooses, and our client for it."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing, suppress
from typing import Any

from orchestrator.backends.kubernetes.auth import ClusterCredentials
from orchestrator.backends.kubernetes.client import KubernetesClient

Object = dict[str, Any]
Answer = Callable[[str, str, bytes], Awaitable[tuple[int, Object]]]
"""Returns the answer to a method, a target and a body: a status and an object."""

_SECONDS = 10


async def _nobody() -> None:
    return None


async def _serve(answer: Answer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(asyncio.IncompleteReadError, OSError), closing(writer):
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            length = int(next(line for line in head.splitlines() if line.startswith("Content-Length")).split()[1])
            method, target, _ = head.splitlines()[0].split()
            status, found = await answer(method, target, await reader.readexactly(length))
            document = json.dumps(found).encode()
            writer.write(b"HTTP/1.1 %d -\r\nContent-Length: %d\r\n\r\n" % (status, len(document)) + document)


@asynccontextmanager
async def serving(answer: Answer) -> AsyncIterator[KubernetesClient]:
    """Run a server, and give our client for it; the block must end within seconds."""
    tasks: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.ensure_future(_serve(answer, reader, writer)))

    listening = await asyncio.start_server(accept, "127.0.0.1", 0)
    api = KubernetesClient(
        ClusterCredentials(f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}", None, _nobody)
    )
    try:
        async with asyncio.timeout(_SECONDS):
            yield api
    finally:
        api.close()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        listening.close()
