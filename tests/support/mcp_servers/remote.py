"""A MCP server over https: `remote.py DIRECTORY`, which holds cert.pem and key.pem; its port is the first line.

/mcp serves streamable HTTP, /sse the older transport, /large answers 17 MiB, /broken with an error.
"""

import asyncio
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from mcp.server import MCPServer
from mcp.server.transport_security import TransportSecuritySettings
from mcp_types import CallToolResult, ImageContent
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route

server = MCPServer("far", version="3.2.1", log_level="ERROR")


@server.tool()
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@server.tool(structured_output=False)
def show() -> CallToolResult:
    """Show an image."""
    return CallToolResult(content=[ImageContent(data="ZGF0YQ==", mime_type="image/png")])


@server.tool(structured_output=False)
async def wait() -> str:
    """Never answer."""
    await asyncio.Event().wait()
    return "never"


async def large(_request: Request) -> Response:
    """Answer with 17 MiB."""

    async def body() -> AsyncIterator[bytes]:
        for _ in range(17 * 16):
            yield b"x" * 65536

    return StreamingResponse(body(), media_type="application/json")


async def broken(_request: Request) -> Response:
    """Fail."""
    return PlainTextResponse("no", status_code=503)


security = TransportSecuritySettings(enable_dns_rebinding_protection=False)
newer = server.streamable_http_app(transport_security=security)
older = server.sse_app(transport_security=security)


@asynccontextmanager
async def lifespan(_app: Starlette) -> AsyncIterator[None]:
    """The newer transport keeps sessions while the server lives."""
    async with newer.router.lifespan_context(newer):
        yield


app = Starlette(
    routes=[
        Route("/large", large, methods=["POST"]),
        Route("/broken", broken, methods=["POST"]),
        *newer.routes,
        Mount("/", older),
    ],
    lifespan=lifespan,
)
listener = socket.create_server(("127.0.0.1", 0))
sys.stdout.write(f"{listener.getsockname()[1]}\n")
sys.stdout.flush()
config = uvicorn.Config(
    app, log_level="error", ssl_certfile=f"{sys.argv[1]}/cert.pem", ssl_keyfile=f"{sys.argv[1]}/key.pem"
)
uvicorn.Server(config).run(sockets=[listener])
