import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from orchestrator.runtime.domain import skill_home
from orchestrator.runtime.errors import SkillError
from orchestrator.runtime.skills.mcp_session import McpSession, Patience
from orchestrator.runtime.skills.stdio import command_line, connect
from orchestrator.runtime.surroundings import Surroundings
from orchestrator.wire.message import FileInlinePart, ImageInlinePart, ResultPart, TextPart, ToolCall
from orchestrator.wire.platform_event import SkillConnected, SkillDisconnected, SkillStarting, SkillStderr
from orchestrator.wire.run import Grant
from orchestrator.wire.skill import StdioSkill
from tests.support import inside

SERVERS = Path(__file__).parents[1] / "support" / "mcp_servers"


def skill(surroundings: Surroundings, *args: str, **fields: Any) -> StdioSkill:
    """A skill that runs one of our servers, which it can read because it lies in the workspace."""
    script = surroundings.workspace / args[0]
    script.write_bytes((SERVERS / args[0]).read_bytes())
    return StdioSkill(name="kit", command=sys.executable, args=("-I", str(script), *args[1:]), **fields)


@asynccontextmanager
async def running(
    root: Path, grant: Grant | None = None, call: float = 20.0, **fields: Any
) -> AsyncIterator[tuple[McpSession, Surroundings]]:
    """A connected skill."""
    surroundings = inside.surroundings(root)
    async with asyncio.timeout(40):
        declared = skill(surroundings, "tools.py", **fields)
        async with connect(declared, grant or Grant(), surroundings, Patience(20.0, call)) as session:
            yield session, surroundings


async def ask(session: McpSession, tool: str, **args: Any) -> tuple[tuple[ResultPart, ...], bool | None]:
    """Call a tool."""
    result = await session.call(ToolCall(id="1", skill_name="kit", tool_name=tool, args=args))
    return result.result, result.is_error


async def said(session: McpSession, tool: str, **args: Any) -> tuple[str, bool | None]:
    """Call a tool that answers with one text."""
    (part,), is_error = await ask(session, tool, **args)
    assert isinstance(part, TextPart)
    return part.text, is_error


async def test_e4_e5_life(tmp_path: Path) -> None:
    """A skill starts, tells its tools, answers, and is told to have ended."""
    async with running(tmp_path, pick=("add", "nothing"), omit=("nothing",)) as (session, surroundings):
        assert [(tool.name, tool.description) for tool in session.tools()] == [("add", "Add two numbers.")]
        assert await said(session, "add", a=2, b=3) == ("5", None)
        assert await said(session, "nothing") == (
            "Error: skill 'kit' has no tool 'nothing'; use one of: add",
            True,
        )
    starting, connected, disconnected = inside.events(surroundings)
    assert isinstance(starting, SkillStarting)
    assert (starting.command, starting.args[0]) == (sys.executable, "-I")
    assert isinstance(connected, SkillConnected)
    assert connected.server_info == {"name": "tools", "version": "1.2.3"}
    assert connected.total_duration_ms is not None
    assert isinstance(disconnected, SkillDisconnected)


async def test_e8_content(tmp_path: Path) -> None:
    """Every kind of content becomes a part, or a text that says why not."""
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


async def test_e2_e3_environment(tmp_path: Path) -> None:
    """A skill gets the base list, its proxy, its own variables and its own directory; it cannot read the state."""
    grant = Grant(env={"TOKEN": "t", "Node_Options": "--inspect"}, proxy_credential="abc")
    async with running(tmp_path, grant) as (session, surroundings):
        text, _ = await said(session, "environ")
        assert (await said(session, "read", path="/etc/passwd"))[1] is None
        spool = str(surroundings.state / "events.jsonl")
        assert await said(session, "read", path=spool) == ("Error executing tool read", True)
    home = str(skill_home(surroundings, "kit"))
    lines = [line for line in text.splitlines() if not line.lower().startswith(("lc_ctype", "http", "no_proxy"))]
    assert {"HTTPS_PROXY=http://x:abc@127.0.0.1:9", "NO_PROXY=localhost,127.0.0.1"} <= set(text.splitlines())
    assert lines == [
        f"HOME={home}",
        "LANG=C.UTF-8",
        "NODE_USE_ENV_PROXY=1",
        f"PATH={surroundings.path}",
        "TERM=dumb",
        f"TMPDIR={home}",
        "TOKEN=t",
        home,
    ]


async def test_e8_death(tmp_path: Path) -> None:
    """A server that dies in a call gives a result that names it, and so do all later calls."""
    async with running(tmp_path) as (session, _):
        for tool in ("die", "nothing"):
            text, is_error = await said(session, tool)
            assert is_error
            assert text.startswith(
                f"Error: tool '{tool}' of skill 'kit' did not answer: the skill's process ended with exit code 7; "
            )
            assert text.endswith("; it last wrote: something broke")


async def test_no_answer(tmp_path: Path) -> None:
    """A call that is never answered ends in time, and the skill can be used again."""
    async with running(tmp_path, call=0.5) as (session, _):
        text = "Error: tool 'wait' of skill 'kit' gave no answer within 0.5 s; ask for less, or go on without it"
        assert await said(session, "wait") == (text, True)
        assert await said(session, "add", a=1, b=1) == ("2", None)


async def test_large_answers(tmp_path: Path) -> None:
    """An answer of megabytes arrives; one over the bound ends the connection instead of filling the memory."""
    async with running(tmp_path) as (session, _):
        assert await said(session, "flood", size=4_000_000) == ("x" * 4_000_000, None)
        text, is_error = await said(session, "flood", size=20_000_000)
        assert (is_error, "a line of more than 16 MiB" in text) == (True, True)


async def test_chatter(tmp_path: Path) -> None:
    """A noisy server is shown up to a bound and goes on working."""
    async with running(tmp_path) as (session, surroundings):
        assert await said(session, "chatter", lines=500) == ("done", None)
    written = [event.message for event in inside.events(surroundings) if isinstance(event, SkillStderr)]
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
    """A server that does not come up ends in one sentence with its command and last words."""
    surroundings = inside.surroundings(tmp_path)
    declared = skill(surroundings, "odd.py", how)
    with pytest.raises(SkillError) as caught:
        async with asyncio.timeout(20), connect(declared, Grant(), surroundings, Patience(0.5, 1.0)):
            pass
    script = surroundings.workspace / "odd.py"
    assert str(caught.value) == f"skill 'kit' does not start: '{sys.executable} -I {script} {how}' {reason}"


async def test_missing_command(tmp_path: Path) -> None:
    """A command that is not in the image is named."""
    declared = StdioSkill(name="kit", command="no-such-program", args=("x",))
    with pytest.raises(SkillError, match="command 'no-such-program' was not found; correct it"):
        async with connect(declared, Grant(), inside.surroundings(tmp_path)):
            pass


async def test_error_of_the_block_stays_itself(tmp_path: Path) -> None:
    """What goes wrong while a skill is open is not wrapped in groups of the SDK's."""
    with pytest.raises(KeyError):
        async with running(tmp_path):
            raise KeyError


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"command": "npx", "package_name": "p"}, ("npx", "-y", "p")),
        ({"command": "npx", "args": ("-y", "p")}, ("npx", "-y", "p")),
        ({"command": "uvx", "package_name": "p"}, ("uvx", "p")),
        ({"command": "python", "args": ("a", "b")}, ("python", "a", "b")),
    ],
)
def test_e1_command_line(fields: dict[str, Any], expected: tuple[str, ...]) -> None:
    """The command line follows E1."""
    assert command_line(StdioSkill(name="kit", **fields)) == expected


@pytest.mark.parametrize("fields", [{}, {"args": ("a",), "package_name": "p"}])
def test_e1_command_line_is_refused(fields: dict[str, Any]) -> None:
    """A package name or arguments, not both, not neither."""
    with pytest.raises(SkillError, match="skill 'kit' has"):
        command_line(StdioSkill(name="kit", command="npx", **fields))
