"""MCP servers over pipes that break the protocol, as real processes."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from orchestrator.runtime.errors import SkillError
from orchestrator.runtime.skills.mcp_session import McpSession, SkillTimeouts
from orchestrator.runtime.skills.stdio import connect
from orchestrator.runtime.tool_context import ToolContext
from orchestrator.wire.event import SkillStderr
from orchestrator.wire.message import TextPart, ToolCall
from orchestrator.wire.run import Grant
from orchestrator.wire.skill import StdioSkill
from tests.support import tool_contexts

SERVER = """
import json, os, sys, time
out = sys.stdout.buffer
def raw(line):
    out.write(line)
    out.flush()
def send(**members):
    raw(json.dumps({"jsonrpc": "2.0", **members}).encode() + b"\\n")
def text(number, value="done"):
    send(id=number, result={"content": [{"type": "text", "text": value}]})
def start():
    for line in sys.stdin.buffer:
        request = json.loads(line)
        number = request.get("id")
        match request["method"]:
            case "initialize":
                info = {"name": "n", "version": "1"}
                send(id=number, result={"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": info})
            case "tools/list":
                send(id=number, result={"tools": [{"name": "t", "inputSchema": {"type": "object"}}]})
            case "tools/call":
                return number
            case _ if number is not None:
                send(id=number, error={"code": -32601, "message": "no"})
def rest():
    for line in sys.stdin.buffer:
        request = json.loads(line)
        if request.get("method") == "tools/call":
            text(request["id"], "again")
number = start()
"""


@asynccontextmanager
async def running(root: Path, program: str, call: float = 10.0) -> AsyncIterator[tuple[McpSession, ToolContext]]:
    """A skill that behaves until its first call, and then as `program` has it."""
    context = tool_contexts.context(root)
    (context.workspace / "server.py").write_text(SERVER + program)
    skill = StdioSkill(name="kit", command=sys.executable, args=("-I", str(context.workspace / "server.py")))
    async with asyncio.timeout(40), connect(skill, Grant(), context, SkillTimeouts(20.0, call)) as session:
        yield session, context


async def said(session: McpSession) -> str:
    """Call the tool."""
    result = await session.call(ToolCall(id="1", skill_name="kit", tool_name="t", args={}))
    (part,) = result.result
    assert isinstance(part, TextPart)
    return part.text


def shown(context: ToolContext) -> list[str]:
    """What the skill's log shows."""
    return [event.message for event in tool_contexts.events(context) if isinstance(event, SkillStderr)]


@pytest.mark.parametrize(
    ("program", "noise"),
    [
        (r"raw(b'Welcome!\n'); text(number); rest()", ["(stdout) Welcome!"]),
        (r"raw(b'\xff\xfe\x00\n'); text(number); rest()", ["(stdout) \ufffd\ufffd\0"]),
        (r"raw(b'\n'); text(number); rest()", ["(stdout)"]),
        (r"""raw(b'{"jsonrpc":"1.0","id":3,"result":{}}\n'); text(number); rest()""", ['(stdout) {"jsonrpc":"1.0"']),
        (r"""raw(b'[{"jsonrpc":"2.0","id":3,"result":{}}]\n'); text(number); rest()""", ['(stdout) [{"jsonrpc":"2.0"']),
        (r"raw(b'[' * 100_000 + b'\n'); text(number); rest()", ["(stdout) [[["]),
        ("send(id=99, result={}); send(id='x', error={'code': 1, 'message': 'm'}); text(number); rest()", []),
        ("send(id=None, error={'code': 1, 'message': 'm'}); text(number); rest()", []),
        ("text(number); text(number, 'twice'); rest()", []),
        ("text(str(number)); rest()", []),
        ("send(id=number, method='ping'); text(number); rest()", []),
        ("send(method='notifications/cancelled', params={'requestId': number}); text(number); rest()", []),
        ("[send(method='notifications/x', params={'n': n}) for n in range(999)]; text(number); rest()", []),
        ("[send(id=n, method='ping') for n in range(500)]; text(number); rest()", []),
        ("text(number, 'done'.replace('d', 'd', 1)); rest()", []),
    ],
)
async def test_what_is_no_reply_does_not_disturb(tmp_path: Path, program: str, noise: list[str]) -> None:
    """It is shown if it is no message, else ignored or answered; the call gets its reply, and so does the next."""
    async with running(tmp_path, program) as (session, context):
        assert [await said(session), await said(session)] == ["done", "again"]
    written = shown(context)
    assert len(written) == len(noise)
    assert all(line.startswith(start) for line, start in zip(written, noise, strict=True))


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("send(id=number, result={})", "gave an answer that the protocol does not allow: content is missing"),
        (
            "send(id=number, result={'content': [{'type': 'video'}]})",
            "gave an answer that the protocol does not allow: content[0].type must be 'text' or",
        ),
        ("send(id=number, error={'code': 5, 'message': 'odd'})", "Error: calling tool 't' of skill 'kit': odd"),
        # These codes have a meaning of their own here, and servers use them for anything.
        (
            "send(id=number, error={'code': -32000, 'message': 'slow down'})",
            "calling tool 't' of skill 'kit': slow down",
        ),
        ("send(id=number, error={'code': -32001, 'message': 'no such'})", "calling tool 't' of skill 'kit': no such"),
        ("send(id=number, error={'code': '9' * 5000, 'message': 'odd'}); os._exit(3)", "ended with exit code 3"),
        ("os.close(1)", "did not answer: the skill's process closed its connection"),
        ("os._exit(3)", "did not answer: the skill's process ended with exit code 3"),
        ("os.kill(os.getpid(), 9)", "did not answer: the skill's process was ended by signal 9"),
        ("raw(b'x' * 17 * 2**20 + b'\\n')", "; it last wrote: (stdout) a line of more than 16 MiB"),
        ("raw(b'x' * 17 * 2**20)", "; it last wrote: (stdout) a line of more than 16 MiB"),
    ],
)
async def test_what_ends_a_call_is_named(tmp_path: Path, program: str, reason: str) -> None:
    """The model reads the reason."""
    async with running(tmp_path, program + "\nsys.stdin.read()") as (session, _):
        assert reason in await said(session)


async def test_a_server_that_no_longer_reads(tmp_path: Path) -> None:
    """Calls with more than the pipe holds time out, and the end of the Run is not held up."""
    async with running(tmp_path, "text(number)\ntime.sleep(60)", call=0.3) as (session, _):
        assert await said(session) == "done"
        call = ToolCall(id="2", skill_name="kit", tool_name="t", args={"a": "x" * 2**20})
        began = time.monotonic()
        result = await session.call(call)
        assert result.is_error
        assert "gave no answer within 0.3 s" in str(result.result)
        assert time.monotonic() - began < 7


async def test_a_server_that_asks_without_reading(tmp_path: Path) -> None:
    """Its requests fill no memory: it is no longer read once answers wait."""
    flood = "while True: send(id=1, method='ping', params={'padding': 'x' * 10_000})"
    async with running(tmp_path, flood, call=0.5) as (session, _):
        assert "gave no answer within 0.5 s" in await said(session)


@pytest.mark.parametrize(
    ("listed", "reason"),
    [
        ("{'tools': [{'name': 't', 'inputSchema': 5}]}", "tools[0].inputSchema must be an object, not a number"),
        ("{}", "tools is missing"),
    ],
)
async def test_a_list_of_tools_that_is_none(tmp_path: Path, listed: str, reason: str) -> None:
    """The skill does not start, and the error has the field."""
    program = SERVER.replace("""{"tools": [{"name": "t", "inputSchema": {"type": "object"}}]}""", listed)
    context = tool_contexts.context(tmp_path)
    script = context.workspace / "server.py"
    script.write_text(program)
    skill = StdioSkill(name="kit", command=sys.executable, args=("-I", str(script)))
    with pytest.raises(SkillError) as caught:
        async with asyncio.timeout(40), connect(skill, Grant(), context):
            pass
    expected = f"does not implement the Model Context Protocol: {reason}"
    assert str(caught.value) == f"skill 'kit' does not start: '{sys.executable} -I {script}' {expected}"
