"""The client that the conformance suite runs: `client.py URL`, with the scenario in MCP_CONFORMANCE_SCENARIO."""

import asyncio
import os
import sys
from functools import partial
from urllib.parse import urlsplit

from orchestrator.runtime.mcp.http_client import HttpClient
from orchestrator.runtime.mcp.session import open_session
from orchestrator.runtime.mcp.streamable_http import streamable_http

ARGS = {"add_numbers": {"a": 5, "b": 3}}


async def main(url: str) -> None:
    """Open a session, list the tools and call each."""
    parts = urlsplit(url)
    connect = partial(asyncio.open_connection, parts.hostname, parts.port)
    async with streamable_http(HttpClient(url, connect)) as transport, open_session(transport) as session:
        for tool in await session.list_tools():
            result = await session.call_tool(tool.name, ARGS.get(tool.name, {}))
            sys.stdout.write(f"{os.environ.get('MCP_CONFORMANCE_SCENARIO')}: {result}\n")


asyncio.run(main(sys.argv[-1]))
