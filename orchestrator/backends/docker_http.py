"""HTTP to an engine, a connection for each request: to a local one it costs a tenth of a millisecond."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from orchestrator.backends.http import Answer, Channel, Connection


@asynccontextmanager
async def request(
    address: str, method: str, path: str, query: Mapping[str, str] | None = None, body: object = None
) -> AsyncIterator[Answer]:
    """Ask the engine at `address` (`unix://PATH` or `tcp://HOST:PORT`); `body` is sent as JSON.

    Raises:
        RefusalError: it answers with a status of 400 or more.
        BrokenError: it cannot be reached, or what comes is no HTTP.
    """
    channel = await Channel.open(lambda: _connect(address), address)
    try:
        yield await channel.ask(method, path, query, body, {"Host": "engine", "Connection": "close"})
    finally:
        channel.close()


async def _connect(address: str) -> Connection:
    parts = urlsplit(address)
    if parts.scheme == "unix":
        return await asyncio.open_unix_connection(parts.path)
    return await asyncio.open_connection(parts.hostname, parts.port)
