import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from orchestrator.runtime.domain import skill_home
from orchestrator.runtime.errors import SkillError
from orchestrator.runtime.skills.mcp_session import McpSession, SkillTimeouts
from orchestrator.runtime.skills.stdio import command_line, connect
from orchestrator.runtime.tool_context import ToolContext
from orchestrator.wire.event import SkillConnected, SkillDisconnected, SkillStarting, SkillStderr
from orchestrator.wire.message import FileInlinePart, ImageInlinePart, ResultPart, TextPart, ToolCall
from orchestrator.wire.run import Grant
from orchestrator.wire.skill import StdioSkill
from tests.support import tool_contexts

SERVERS = Path(__file__).parents[1] / "support" / "mcp_servers"


def skill(context: ToolContext, *args: str, **fields: Any) -> StdioSkill:
    """A skill that runs one of our servers; the server's file is in the workspace, so that it can read it."""
    script = context.workspace / args[0]
    script.write_bytes((SERVERS / args[0]).read_bytes())
    return StdioSkill(name="kit", command=sys.executable, args=("-I", str(script), *args[1:]), **fields)


@asynccontextmanager
async def running(
    root: Path, grant: Grant | None = None, call: float = 20.0, **fields: Any
) -> AsyncIterator[tuple[McpSession, ToolContext]]:
    """A connected skill."""
    context = tool_contexts.context(root)
    async with asyncio.timeout(40):
        declared = skill(context, "tools.py", **fields)
        async with connect(declared, grant or Grant(), context, SkillTimeouts(20.0, call)) as session:
            yield session, context


async def ask(session: McpSession, tool: str, **args: Any) -> tuple[tuple[ResultPart, ...], bool | None]:
    """Call a tool."""
    result = await session.call(ToolCall(id="1", skill_name="kit", tool_name=tool, args=args))
    return result.result, result.is_error


async def said(session: McpSession, tool: str, **args: Any) -> tuple[str, bool | None]:
    """Call a tool that answers with one text."""
    (part,), is_error = await ask(session, tool, **args)
    assert isinstance(part, TextPart)
    return part.text, is_error


@pytest.mark.behaviour("E4", "E5")
async def test_a_skill_starts_answers_and_ends(tmp_path: Path) -> None:
    """It lists its tools, answers, and reports its end."""
    async with running(tmp_path, pick=("add", "nothing"), omit=("nothing",)) as (session, context):
        assert [(tool.name, tool.description) for tool in session.tools()] == [("add", "Add two numbers.")]
        assert await said(session, "add", a=2, b=3) == ("5", None)
        assert await said(session, "nothing") == (
            "Error: skill 'kit' has no tool 'nothing'; use one of: add",
            True,
        )
    starting, connected, disconnected = tool_contexts.events(context)
    assert isinstance(starting, SkillStarting)
    assert (starting.command, starting.args[0]) == (sys.executable, "-I")
    assert isinstance(connected, SkillConnected)
    assert connected.server_info == {"name": "tools", "version": "1.2.3"}
    assert connected.total_duration_ms is not None
    assert isinstance(disconnected, SkillDisconnected)


@pytest.mark.behaviour("E8")
async def test_every_kind_of_content_becomes_a_part_or_a_text(tmp_path: Path) -> None:
    """A text gives the reason where there is no part for it."""
    async with running(tmp_path) as (session, _):
        parts, is_error = await ask(session, "mixed")
        assert (await said(session, "nothing"))[0] == "The tool returned nothing. Its arguments were: {}"
        assert await said(session, "fail") == ("Error executing tool fail", True)
        assert (await said(session, "add", a="x", b=1))[1] is True
    data = "ZGF0YQ=="
    texts = {
        "p1": "text",
        "p2": "Error: No content",
        "p4": "Error: the tool returned an image without data or type",
        "p5": "resource",
        "p7": "Error: the resource a://d came without data or type",
        "p8": "[audio of type audio/wav was left out: it cannot be shown]",
        "p9": "[a link to the resource a://e was left out: it is not followed]",
    }
    whole: dict[str, ResultPart] = {part_id: TextPart(id=part_id, text=text) for part_id, text in texts.items()}
    whole["p3"] = ImageInlinePart(id="p3", encoded_data=data, mime_type="image/png")
    whole["p6"] = FileInlinePart(id="p6", encoded_data=data, mime_type="application/pdf")
    assert (parts, is_error) == (tuple(whole[part_id] for part_id in sorted(whole)), None)


@pytest.mark.behaviour("E2", "E3")
async def test_a_skill_gets_only_the_environment_that_was_granted(tmp_path: Path) -> None:
    """It has the fixed list, its proxy, its own variables and directory, and cannot read the state."""
    grant = Grant(env={"TOKEN": "t", "Node_Options": "--inspect"}, proxy_credential="abc")
    async with running(tmp_path, grant) as (session, context):
        text, _ = await said(session, "environ")
        assert (await said(session, "read", path="/etc/passwd"))[1] is None
        spool = str(context.state / "events.jsonl")
        assert await said(session, "read", path=spool) == ("Error executing tool read", True)
    home = str(skill_home(context, "kit"))
    lines = [line for line in text.splitlines() if not line.lower().startswith(("lc_ctype", "http", "no_proxy"))]
    assert {"HTTPS_PROXY=http://x:abc@127.0.0.1:9", "NO_PROXY=localhost,127.0.0.1"} <= set(text.splitlines())
    assert lines == [
        f"HOME={home}",
        "LANG=C.UTF-8",
        "NODE_USE_ENV_PROXY=1",
        f"PATH={context.path}",
        "TERM=dumb",
        f"TMPDIR={home}",
        "TOKEN=t",
        home,
    ]


@pytest.mark.behaviour("E8")
async def test_a_server_that_dies_in_a_call_is_named(tmp_path: Path) -> None:
    """The call and all later ones get a result with its name."""
    async with running(tmp_path) as (session, _):
        for tool in ("die", "nothing"):
            text, is_error = await said(session, tool)
            assert is_error
            assert text.startswith(
                f"Error: tool '{tool}' of skill 'kit' did not answer: the skill's process ended with exit code 7; "
            )
            assert text.endswith("; it last wrote: something broke")


async def test_no_answer(tmp_path: Path) -> None:
    """A call without an answer times out, and the skill can still be used."""
    async with running(tmp_path, call=0.5) as (session, _):
        text = (
            "Error: tool 'wait' of skill 'kit' gave no answer within 0.5 s; "
            "ask for less, or go on without it"  # words: a result
        )
        assert await said(session, "wait") == (text, True)
        assert await said(session, "add", a=1, b=1) == ("2", None)


async def test_large_answers(tmp_path: Path) -> None:
    """An answer of megabytes arrives; one over the limit ends the connection instead of filling the memory."""
    async with running(tmp_path) as (session, _):
        assert await said(session, "flood", size=4_000_000) == ("x" * 4_000_000, None)
        text, is_error = await said(session, "flood", size=20_000_000)
        assert (is_error, "a line of more than 16 MiB" in text) == (True, True)


async def test_chatter(tmp_path: Path) -> None:
    """Output of a noisy server is shown up to a limit, and the server stays usable."""
    async with running(tmp_path) as (session, context):
        assert await said(session, "chatter", lines=500) == ("done", None)
    written = [event.message for event in tool_contexts.events(context) if isinstance(event, SkillStderr)]
    assert max(map(len, written)) <= 4096
    assert (len(written), written[-1]) == (
        101,
        "[skill 'kit' wrote 100 pieces to its stderr; the rest is not shown]",
    )


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("exit", "ended with exit code 1; it last wrote: no token was given"),
        ("garbage", "ended with exit code 3; it last wrote: (stdout) Welcome to the server!"),
        ("silent", "did not answer within 0.5 s"),
    ],
)
async def test_does_not_start(tmp_path: Path, how: str, reason: str) -> None:
    """A server that does not start causes one sentence with its command and its last output."""
    context = tool_contexts.context(tmp_path)
    declared = skill(context, "odd.py", how)
    with pytest.raises(SkillError) as caught:
        async with asyncio.timeout(20), connect(declared, Grant(), context, SkillTimeouts(0.5, 1.0)):
            pass
    script = context.workspace / "odd.py"
    assert str(caught.value) == f"skill 'kit' does not start: '{sys.executable} -I {script} {how}' {reason}"


async def test_missing_command(tmp_path: Path) -> None:
    """A missing command is named in the error."""
    declared = StdioSkill(name="kit", command="no-such-program", args=("x",))
    with pytest.raises(SkillError, match="command 'no-such-program' was not found; correct it"):
        async with connect(declared, Grant(), tool_contexts.context(tmp_path)):
            pass


async def test_error_of_the_block_stays_itself(tmp_path: Path) -> None:
    """An error while a skill is open is not wrapped in the SDK's exception groups."""
    with pytest.raises(KeyError):
        async with running(tmp_path):
            raise KeyError


@pytest.mark.behaviour("E1")
@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"command": "npx", "package_name": "p"}, ("npx", "-y", "p")),
        ({"command": "npx", "args": ("-y", "p")}, ("npx", "-y", "p")),
        ({"command": "uvx", "package_name": "p"}, ("uvx", "p")),
        ({"command": "python", "args": ("a", "b")}, ("python", "a", "b")),
    ],
)
def test_the_command_line_has_a_package_or_arguments(fields: dict[str, Any], expected: tuple[str, ...]) -> None:
    """`npx` gets one `-y`."""
    assert command_line(StdioSkill(name="kit", **fields)) == expected


@pytest.mark.behaviour("E1")
@pytest.mark.parametrize("fields", [{}, {"args": ("a",), "package_name": "p"}])
def test_a_command_line_with_both_or_neither_is_refused(fields: dict[str, Any]) -> None:
    """A skill has a package's name or arguments."""
    with pytest.raises(SkillError, match="skill 'kit' has"):
        command_line(StdioSkill(name="kit", command="npx", **fields))
