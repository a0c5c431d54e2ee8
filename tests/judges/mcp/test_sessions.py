"""Our session and that of the protocol's own SDK have the same conversation with the SDK's servers.

What they send is compared, and what they return.
"""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, MCPError, StdioServerParameters
from mcp.client.sse import sse_client
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client
from pydantic import ValidationError

from orchestrator.runtime.confinement import confine_skill
from orchestrator.runtime.domain import skill_home
from orchestrator.runtime.mcp.exchange import Transport
from orchestrator.runtime.mcp.http_client import HttpClient
from orchestrator.runtime.mcp.legacy_sse import legacy_sse
from orchestrator.runtime.mcp.protocol import McpError, ViolationError
from orchestrator.runtime.mcp.session import Session, open_session
from orchestrator.runtime.mcp.streamable_http import streamable_http
from orchestrator.runtime.skills.stderr import SkillLog
from orchestrator.runtime.skills.stdio_transport import stdio_transport
from orchestrator.wire.run import Grant
from tests.judges.mcp.test_messages import as_ours
from tests.support import tool_contexts

pytestmark = [pytest.mark.judges]

HERE = Path(__file__).parent
SECONDS = 40
PYTHON = (sys.executable, "-I", "-W", "ignore")
KINDS = ("stdio", "events", "json", "sse")
CALLS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("add", {"a": 2, "b": 3}),
    ("add", {"a": None, "b": 3}),
    ("wrong", {}),
    ("bare", {}),
    ("fails", {}),
    ("mixed", {"deep": {"none": None, "list": [1, "\u20ac"]}}),
    ("refuses", {}),
    ("reports", {}),
    ("asks", {}),
    ("elicits", {}),
    ("polls", {}),
    ("never", {}),
    ("routed", {"where": "caf\u00e9", "deep": {"flag": True}}),
    ("routed", {"where": " plain "}),
    ("unroutable", {"a": 1}),
    ("unknown", {}),
)

Call = Callable[[str, dict[str, Any]], Coroutine[Any, Any, Any]]


async def conversation(tools: list[Any], call: Call) -> dict[str, Any]:
    """Call every tool, give one call up, and return what happened."""
    outcomes = [await call(name, args) for name, args in CALLS]
    waiting = asyncio.get_running_loop().create_task(call("waits", {}))
    await asyncio.sleep(0.5)
    waiting.cancel()
    await asyncio.wait((waiting,))
    outcomes.append(("given up", waiting.cancelled()))
    outcomes.append(await call("add", {"a": 1, "b": 1}))
    return {"tools": tools, "outcomes": outcomes}


async def with_sdk(client: Client) -> dict[str, Any]:
    """The conversation through the SDK."""

    async def call(name: str, args: dict[str, Any]) -> Any:
        try:
            found = await client.call_tool(name, args)
        except MCPError as error:
            return "error", error.code, str(error)
        except (RuntimeError, ValidationError) as error:
            return "violation", str(error).partition(":")[0].partition("; ")[0]
        return "result", tuple(map(as_ours, found.content)), found.is_error, found.structured_content

    tools, cursor = [], None
    while True:
        page = await client.list_tools(cursor=cursor)
        tools += [(tool.name, tool.description, tool.input_schema, tool.output_schema) for tool in page.tools]
        cursor = page.next_cursor
        if cursor is None:
            break
    assert client.server_info is not None
    about = client.protocol_version, client.server_info.name, client.server_info.version
    return {"about": about, **await conversation(tools, call)}


async def with_ours(session: Session) -> dict[str, Any]:
    """The conversation through our session."""

    async def call(name: str, args: dict[str, Any]) -> Any:
        try:
            found = await session.call_tool(name, args)
        except McpError as error:
            return "error", error.code, str(error)
        except ViolationError as error:
            return "violation", str(error).partition(":")[0]
        return "result", found.content, found.is_error, found.structure

    listed = await session.list_tools()
    tools = [(tool.name, tool.description, tool.input_schema, tool.output_schema) for tool in listed]
    assert session.server is not None
    about = session.version, session.server.name, session.server.version
    return {"about": about, **await conversation(tools, call)}


@contextmanager
def http_server(record: Path, kind: str, *, is_older: bool) -> Iterator[int]:
    """The port of a server over HTTP."""
    command = (*PYTHON, str(HERE / "sdk_server.py"), str(record), kind, *(["older"] if is_older else []))
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        yield int(server.stdout.readline())
        server.kill()


@asynccontextmanager
async def our_session(root: Path, kind: str, *, is_older: bool) -> AsyncIterator[tuple[Session, Path]]:
    """Our session with a server, and the record of what it sends."""
    async with AsyncExitStack() as stack:
        if kind == "stdio":
            context = tool_contexts.context(root)
            for name in ("relay.py", "sdk_server.py"):
                (context.workspace / name).write_bytes((HERE / name).read_bytes())
            tool = await stack.enter_async_context(confine_skill("kit", context, Grant()))
            directory = tool.open_directory()
            child = await tool.spawner.start(
                command(context.workspace, is_older=is_older), env=tool.env, cwd=directory, line_bytes=2**24
            )
            log = SkillLog("kit", context.emitter)
            transport = await stack.enter_async_context(stdio_transport(child, log))
            record = skill_home(context, "kit") / "record"
            yield await stack.enter_async_context(open_session(transport)), record
            return
        record = root / "ours"
        port = stack.enter_context(http_server(record, kind, is_older=is_older))
        client = HttpClient(f"http://127.0.0.1:{port}/{'sse' if kind == 'sse' else 'mcp'}", partial(_connect, port))
        opened: AbstractAsyncContextManager[Transport] = (
            legacy_sse(client) if kind == "sse" else streamable_http(client)
        )
        far = await stack.enter_async_context(opened)
        yield await stack.enter_async_context(open_session(far, discover=kind != "sse")), record


async def _connect(port: int) -> Any:
    return await asyncio.open_connection("127.0.0.1", port)


@asynccontextmanager
async def sdk_session(root: Path, kind: str, *, is_older: bool) -> AsyncIterator[tuple[Client, Path]]:
    """The SDK's session with a server, and the record of what it sends."""
    record = root / "theirs"
    if kind == "stdio":
        first, *rest = command(HERE, is_older=is_older)
        rest[rest.index("record")] = str(record)
        async with Client(stdio_client(StdioServerParameters(command=first, args=rest)), cache=None) as client:
            yield client, record
        return
    with http_server(record, kind, is_older=is_older) as port:
        if kind == "sse":
            opened = Client(sse_client(f"http://127.0.0.1:{port}/sse"), cache=None, mode="legacy")
        else:
            opened = Client(streamable_http_client(f"http://127.0.0.1:{port}/mcp"), cache=None)
        async with opened as client:
            yield client, record


def command(directory: Path, *, is_older: bool) -> list[str]:
    """The relay, and behind it the server over pipes."""
    server = [*PYTHON, str(directory / "sdk_server.py"), "stdio"]
    return [*PYTHON, str(directory / "relay.py"), "record", *(["--older"] if is_older else []), *server]


def sent(record: Path) -> list[dict[str, Any]]:
    """The messages of a record, without what names the client."""
    lines = [json.loads(line) for line in record.read_text().splitlines()]
    bodies = [json.loads(line["body"]) for line in lines if line["body"]] if "body" in lines[0] else lines
    return [json.loads(json.dumps(body), object_hook=_anonymous) for body in bodies]


def _anonymous(fields: dict[str, Any]) -> dict[str, Any]:
    return {"name": "client", "version": "1"} if fields.keys() == {"name", "version"} else fields


def in_order(messages: list[dict[str, Any]]) -> tuple[list[str], list[str]]:
    """Requests and notifications in their order; answers apart, since they are sent while others are."""
    told = [json.dumps(message, sort_keys=True) for message in messages if "method" in message]
    answers = sorted(json.dumps(message, sort_keys=True) for message in messages if "method" not in message)
    return told, answers


LEFT_OUT = {"host", "user-agent", "content-length", "connection", "mcp-session-id", "accept-encoding"}
"""Headers with other values each time, or about the connection itself."""


def requests(record: Path) -> list[tuple[str, str, Mapping[str, str]]]:
    """The requests of a record over HTTP, sorted, since some are sent side by side."""
    lines = [json.loads(line) for line in record.read_text().splitlines()]
    return sorted(
        (
            (
                line["method"],
                line["path"].rstrip("/"),
                {
                    "has session": str("mcp-session-id" in line["headers"]),
                    **{name: value for name, value in line["headers"].items() if name not in LEFT_OUT},
                },
            )
            for line in lines
        ),
        key=partial(json.dumps, sort_keys=True),
    )


@pytest.mark.parametrize("is_older", [False, True], ids=["newest", "older"])
@pytest.mark.parametrize("kind", KINDS)
async def test_the_same_conversation(tmp_path: Path, kind: str, *, is_older: bool) -> None:
    """Over every transport, with and without a handshake: the same messages, headers, tools, results and errors."""
    async with asyncio.timeout(2 * SECONDS):
        async with our_session(tmp_path, kind, is_older=is_older) as (session, our_record):
            ours = await with_ours(session)
        async with sdk_session(tmp_path, kind, is_older=is_older) as (client, their_record):
            theirs = await with_sdk(client)
    assert ours == theirs
    assert in_order(sent(our_record)) == in_order(sent(their_record))
    if kind != "stdio":
        assert requests(our_record) == requests(their_record)


@pytest.mark.parametrize(("name", "value"), [("HEADER_METHOD", "mcp-way"), ("INITIALIZED", "notifications/started")])
async def test_what_is_wrong_on_the_wire_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    """A deliberately wrong header, and a wrong method, are differences."""
    monkeypatch.setattr(f"orchestrator.runtime.mcp.session.{name}", value)
    is_older = name == "INITIALIZED"
    async with asyncio.timeout(2 * SECONDS):
        async with sdk_session(tmp_path, "events", is_older=is_older) as (client, their_record):
            await client.list_tools()
        with suppress(McpError):
            async with our_session(tmp_path, "events", is_older=is_older) as (session, _):
                await session.list_tools()
    our_record = tmp_path / "ours"
    assert (in_order(sent(our_record)), requests(our_record)) != (in_order(sent(their_record)), requests(their_record))
    assert value in our_record.read_text()
