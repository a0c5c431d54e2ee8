"""A well-behaved MCP server, save for tools that die, never answer, or answer too much."""

import asyncio
import base64
import json
import os
import sys
from pathlib import Path

from mcp.server import MCPServer
from mcp_types import (
    AudioContent,
    BlobResourceContents,
    CallToolResult,
    EmbeddedResource,
    ImageContent,
    ResourceLink,
    TextContent,
    TextResourceContents,
)

server = MCPServer("tools", version="1.2.3", log_level="ERROR")


@server.tool()
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@server.tool(structured_output=False)
def environ() -> str:
    """Show the environment, the working directory last."""
    return "\n".join([*sorted(f"{name}={value}" for name, value in os.environ.items()), str(Path.cwd())])


@server.tool(structured_output=False)
def read(path: str) -> str:
    """Read a file."""
    return Path(path).read_text(encoding="utf-8", errors="replace")


@server.tool(structured_output=False)
def fail() -> str:
    """Fail."""
    message = "it was not to be"
    raise RuntimeError(message)


@server.tool(structured_output=False)
def mixed() -> CallToolResult:
    """Return one of everything."""
    data = base64.b64encode(b"data").decode()
    return CallToolResult(
        content=[
            TextContent(text="text"),
            TextContent(text=""),
            ImageContent(data=data, mime_type="image/png"),
            ImageContent(data="", mime_type="image/png"),
            EmbeddedResource(resource=TextResourceContents(uri="a://b", text="resource")),
            EmbeddedResource(resource=BlobResourceContents(uri="a://c", blob=data, mime_type="application/pdf")),
            EmbeddedResource(resource=BlobResourceContents(uri="a://d", blob=data)),
            AudioContent(data=data, mime_type="audio/wav"),
            ResourceLink(uri="a://e", name="e"),
        ]
    )


@server.tool(name="readImageFile", structured_output=False)
def read_image_file(path: str) -> str:
    """Answer as Perstack's own tool of this name does, for any path."""
    return json.dumps({"path": path, "mimeType": "image/png", "size": 1})


@server.tool(structured_output=False)
def nothing() -> CallToolResult:
    """Return nothing."""
    return CallToolResult(content=[])


@server.tool(structured_output=False)
def die() -> str:
    """Die without an answer."""
    sys.stderr.write("something broke\n")
    sys.stderr.flush()
    os._exit(7)


@server.tool(structured_output=False)
async def wait() -> str:
    """Never answer."""
    await asyncio.Event().wait()
    return "never"


@server.tool(structured_output=False)
def chatter(lines: int) -> str:
    """Write much to stderr."""
    for number in range(lines):
        sys.stderr.write(f"{number} " + "x" * 5000 + "\n")
    sys.stderr.flush()
    return "done"


@server.tool(structured_output=False)
def flood(size: int) -> str:
    """Answer with `size` characters."""
    return "x" * size


server.run("stdio")
