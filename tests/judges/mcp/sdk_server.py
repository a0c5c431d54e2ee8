"""A server made with the protocol's own SDK, with a tool for each thing that a client can meet.

`sdk_server.py stdio` serves over pipes, `sdk_server.py RECORD KIND [older]` over HTTP: its port is the first line, and
each request is appended to RECORD. KIND is `events`, `json` or `sse`; `older` knows no `server/discover`.
"""

import asyncio
import json
import socket
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import mcp_types as types
import uvicorn
from mcp.server.lowlevel import Server
from mcp.server.mcpserver import MCPServer
from mcp.server.stdio import stdio_server
from mcp.shared.exceptions import MCPError

NUMBERS = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}, "required": ["a", "b"]}
NOTHING = {"type": "object", "properties": {}}
SUM = {"type": "object", "properties": {"sum": {"type": "integer"}}, "required": ["sum"]}
ROUTED = {
    "type": "object",
    "properties": {
        "where": {"type": "string", "x-mcp-header": "Where"},
        "deep": {"type": "object", "properties": {"flag": {"type": "boolean", "x-mcp-header": "Flag"}}},
    },
}
UNROUTABLE = {"type": "object", "properties": {"a": {"type": "number", "x-mcp-header": "A"}}}
PAGES = (
    (
        types.Tool(name="add", title="Add", description="Add numbers.", input_schema=NUMBERS, output_schema=SUM),
        types.Tool(name="wrong", input_schema=NOTHING, output_schema=SUM),
        types.Tool(name="bare", input_schema=NOTHING, output_schema=SUM),
        types.Tool(name="fails", input_schema=NOTHING, output_schema=SUM),
    ),
    (
        types.Tool(name="mixed", input_schema=NOTHING),
        types.Tool(name="refuses", input_schema=NOTHING),
        types.Tool(
            name="reports",
            input_schema=NOTHING,
            annotations=types.ToolAnnotations(title="Reports", read_only_hint=True, open_world_hint=False),
        ),
        types.Tool(name="asks", input_schema=NOTHING),
        types.Tool(name="waits", input_schema=NOTHING),
    ),
    (
        types.Tool(name="elicits", input_schema=NOTHING),
        types.Tool(name="polls", input_schema=NOTHING),
        types.Tool(name="never", input_schema=NOTHING),
        types.Tool(name="routed", input_schema=ROUTED),
        types.Tool(name="unroutable", input_schema=UNROUTABLE),
    ),
)


async def list_tools(_ctx: Any, params: types.PaginatedRequestParams | None) -> types.ListToolsResult:
    """Three pages."""
    number = int(params.cursor) if params and params.cursor else 0
    last = number + 1 == len(PAGES)
    return types.ListToolsResult(tools=list(PAGES[number]), next_cursor=None if last else str(number + 1))


def text(value: str, **more: Any) -> types.CallToolResult:
    """A result of text alone."""
    return types.CallToolResult(content=[types.TextContent(text=value)], **more)


async def asks(ctx: Any, _args: Any, _state: int) -> types.CallToolResult:
    """Ask the client for everything that a server can ask for, and return what it answers."""
    answers = []
    schema: dict[str, Any] = {"type": "object", "properties": {}}
    message = types.SamplingMessage(role="user", content=types.TextContent(text="Hello"))
    requests = (
        (types.PingRequest(), types.EmptyResult),
        (types.ListRootsRequest(), types.ListRootsResult),
        (
            types.CreateMessageRequest(params=types.CreateMessageRequestParams(messages=[message], max_tokens=1)),
            types.CreateMessageResult,
        ),
        (
            types.ElicitRequest(params=types.ElicitRequestFormParams(message="Hello?", requested_schema=schema)),
            types.ElicitResult,
        ),
    )
    for request, kind in requests:
        try:
            answers.append(repr(await ctx.session.send_request(request, kind)))
        except MCPError as error:
            answers.append(f"{error.code} {error.message} {error.data}")
    return text("\n".join(answers))


async def reports(ctx: Any, _args: Any, _state: int) -> types.CallToolResult:
    """Send everything that a server can send on its own, and then the result."""
    await ctx.session.report_progress(1, 2, "half")
    await ctx.session.send_log_message("info", "hello")
    await ctx.session.send_tool_list_changed()
    await ctx.session.send_progress_notification("unknown", 1)
    return text("reported")


async def mixed(_ctx: Any, _args: Any, _state: int) -> types.CallToolResult:
    """One of each kind of content."""
    return types.CallToolResult(
        content=[
            types.TextContent(text="text", annotations=types.Annotations(audience=["user"], priority=1)),
            types.ImageContent(data="ZGF0YQ==", mime_type="image/png"),
            types.AudioContent(data="ZGF0YQ==", mime_type="audio/wav"),
            types.ResourceLink(uri="a://b", name="b", size=5),
            types.EmbeddedResource(resource=types.TextResourceContents(uri="a://c", text="c")),
            types.EmbeddedResource(resource=types.BlobResourceContents(uri="a://d", blob="ZA==", mime_type="x/y")),
        ],
        structured_content={"more": [1, None, 2.5]},
    )


async def add(_ctx: Any, args: dict[str, Any], _state: int) -> types.CallToolResult:
    """Add two numbers; null counts as 0."""
    total = (args["a"] or 0) + args["b"]
    return text(str(total), structured_content={"sum": total})


async def wrong(_ctx: Any, _args: Any, _state: int) -> types.CallToolResult:
    """Break the output schema."""
    return text("five", structured_content={"sum": "five"})


async def bare(_ctx: Any, _args: Any, _state: int) -> types.CallToolResult:
    """Return no structured content, in spite of an output schema."""
    return text("five")


async def fails(_ctx: Any, _args: Any, _state: int) -> types.CallToolResult:
    """Fail."""
    return text("it was not to be", is_error=True)


async def refuses(_ctx: Any, _args: Any, _state: int) -> types.CallToolResult:
    """Return an error of the protocol."""
    raise MCPError(-32002, "refused", {"why": "so"})


async def waits(_ctx: Any, _args: Any, _state: int) -> types.CallToolResult:
    """Never answer."""
    await asyncio.Event().wait()
    raise AssertionError


async def elicits(_ctx: Any, _args: Any, _state: int) -> types.InputRequiredResult:
    """Need input of the user."""
    form = types.ElicitRequestFormParams(message="Hello?", requested_schema=NOTHING)
    return types.InputRequiredResult(input_requests={"a": types.ElicitRequest(params=form)})


async def polls(_ctx: Any, _args: Any, state: int) -> types.CallToolResult | types.InputRequiredResult:
    """Answer at the third request."""
    return text("polled") if state == 2 else types.InputRequiredResult(request_state=str(state + 1))


async def never(_ctx: Any, _args: Any, state: int) -> types.InputRequiredResult:
    """Ask for one more request each time."""
    return types.InputRequiredResult(request_state=str(state + 1))


async def routed(_ctx: Any, args: dict[str, Any], _state: int) -> types.CallToolResult:
    """Return the arguments."""
    return text(json.dumps(args))


TOOLS: dict[str, Callable[[Any, dict[str, Any], int], Awaitable[Any]]] = {
    tool.__name__: tool
    for tool in (add, wrong, bare, fails, mixed, refuses, reports, asks, waits, elicits, polls, never, routed)
}


async def call_tool(ctx: Any, params: types.CallToolRequestParams) -> types.CallToolResult | types.InputRequiredResult:
    """Run a tool."""
    if params.name not in TOOLS:
        raise MCPError(-32602, f"Unknown tool: {params.name}")
    found: types.CallToolResult | types.InputRequiredResult = await TOOLS[params.name](
        ctx, params.arguments or {}, int(params.request_state or 0)
    )
    return found


App = Callable[[Any, Any, Any], Awaitable[None]]


def recorded(app: App, record: Path, *, is_older: bool) -> App:
    """Append the requests to an app to a file; one that is older refuses `server/discover`."""

    async def outer(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        body, more = b"", True
        while more:
            event = await receive()
            body, more = body + event.get("body", b""), event.get("more_body", False)
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        line = {"method": scope["method"], "path": scope["path"], "headers": headers, "body": body.decode()}
        with record.open("a") as file:
            file.write(json.dumps(line) + "\n")
        if is_older and b"server/discover" in body:
            await send({"type": "http.response.start", "status": 404, "headers": []})
            await send({"type": "http.response.body", "body": b"no"})
            return
        given = False

        async def again() -> Any:
            nonlocal given
            if given:
                return await receive()
            given = True
            return {"type": "http.request", "body": body, "more_body": False}

        await app(scope, again, send)

    return outer


def main() -> None:
    """Serve as the arguments have it."""
    server: Server[Any] = Server("judge", version="4.5.6", on_list_tools=list_tools, on_call_tool=call_tool)
    if sys.argv[1] == "stdio":

        async def serve() -> None:
            async with stdio_server() as (incoming, outgoing):
                await server.run(incoming, outgoing, server.create_initialization_options())

        asyncio.run(serve())
        return
    record, kind, *rest = sys.argv[1:]
    if kind == "sse":
        outer = MCPServer("judge", version="4.5.6", log_level="ERROR")
        outer._lowlevel_server = server  # noqa: SLF001 - the lower level has no app of this kind
        app: App = outer.sse_app()
    else:
        app = server.streamable_http_app(json_response=kind == "json")
    listener = socket.create_server(("127.0.0.1", 0))
    sys.stdout.write(f"{listener.getsockname()[1]}\n")
    sys.stdout.flush()
    config = uvicorn.Config(recorded(app, Path(record), is_older="older" in rest), log_level="error")
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
