import asyncio
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from orchestrator.runtime.domain import exec_home
from orchestrator.runtime.tool_context import ToolContext
from orchestrator.runtime.tools import ToolError
from orchestrator.runtime.tools.exec import Commands, connect, execute
from orchestrator.wire.run import Grant
from tests.support import tool_contexts

ASKED: Mapping[str, Any] = {"command": "sh", "env": {}, "cwd": ".", "stdout": True, "stderr": True}


@pytest.fixture
def context(tmp_path: Path) -> ToolContext:
    """The directories of a Sandbox."""
    return tool_contexts.context(tmp_path)


async def run(context: ToolContext, script: str, grant: Grant | None = None, **more: Any) -> dict[str, Any]:
    """Run a shell script; return its result, also that of a failure."""
    args = {**ASKED, "args": ["-c", script], **more}
    try:
        async with asyncio.timeout(20):
            result: dict[str, Any] = json.loads(await execute(args, context, grant or Grant()))
            return result
    except ToolError as error:
        return dict(error.result)


@pytest.mark.behaviour("F6")
@pytest.mark.parametrize(
    ("script", "more", "expected"),
    [
        ("echo out; echo err >&2", {}, {"output": "out\nerr\n"}),
        ("echo out; echo err >&2", {"stderr": False}, {"output": "out\n"}),
        ("echo out", {"stdout": False}, {"output": "The command succeeded and wrote no output."}),
        ("printf '\\377x'", {}, {"output": "\ufffdx"}),
        ("read x || echo empty", {}, {"output": "empty\n"}),
        (
            "echo out; exit 3",
            {"stderr": False},
            {"error": "command 'sh' failed with exit code 3", "stdout": "out\n"},
        ),
        ("kill -9 $$", {}, {"error": "command 'sh' was ended by signal 9", "stdout": "", "stderr": ""}),
        (
            "echo out; sleep 60",
            {"timeout": 200},
            {"error": "Command timed out after 200ms.", "stdout": "out\n", "stderr": ""},
        ),
        ("", {"command": "no-such"}, {"error": "command 'no-such' was not found; check its name, or give its path"}),
        ("", {"command": "/etc/passwd"}, {"error": "command '/etc/passwd' cannot be run: Permission denied"}),
        ("", {"command": "a\0b"}, {"error": "command 'a\\x00b' cannot be run: embedded null byte"}),
    ],
)
async def test_exec_returns_the_selected_streams(
    context: ToolContext, script: str, more: dict[str, Any], expected: dict[str, Any]
) -> None:
    """Only selected streams are returned; failures are sentences."""
    assert await run(context, script, **more) == expected


@pytest.mark.behaviour("E2", "E3", "F6")
async def test_exec_gets_only_the_environment_that_was_granted(context: ToolContext) -> None:
    """A command gets the base list, its grant, its arguments' variables, and no protected name."""
    grant = Grant(env={"GRANTED": "1"}, proxy_credential="abc")
    result = await run(context, "env", grant, env={"ASKED": "2", "Ld_Preload": "/evil.so", "PATH": "/evil"})
    url, local = "http://x:abc@127.0.0.1:9", "localhost,127.0.0.1"
    home = str(exec_home(context))
    assert dict(line.split("=", 1) for line in result["output"].splitlines()) == {
        "PATH": context.path,
        "HOME": home,
        "TMPDIR": home,
        "TERM": "dumb",
        "LANG": "C.UTF-8",
        "PWD": str(context.workspace),
        "GRANTED": "1",
        "ASKED": "2",
        "NODE_USE_ENV_PROXY": "1",
        **dict.fromkeys(("HTTPS_PROXY", "HTTP_PROXY", "https_proxy", "http_proxy"), url),
        **dict.fromkeys(("NO_PROXY", "no_proxy"), local),
    }


async def test_working_directory(context: ToolContext) -> None:
    """A command runs in the requested directory, which is never outside the workspace."""
    (context.workspace / "sub").mkdir()
    (context.workspace / "link").symlink_to("/etc")
    assert await run(context, "pwd", cwd="/workspace/sub") == {"output": f"{context.workspace}/sub\n"}
    for outside in ("..", "/etc", "link"):
        assert "error" in await run(context, "pwd", cwd=outside)


@pytest.mark.behaviour("F6")
async def test_exec_without_end_is_stopped(context: ToolContext) -> None:
    """The result has a sample of the output."""
    assert await run(context, "yes", stderr=False) == {
        "error": "the command was stopped: it wrote more than 10 MiB; write to a file instead",
        "stdout": "y\n" * 2048,
    }


async def test_a_timeout_ends_the_whole_group(context: ToolContext) -> None:
    """After a timeout, all processes that the command started are killed."""
    result = await run(context, "sleep 60 & echo $!; wait", timeout=300)
    pid = int(result["stdout"])
    async with asyncio.timeout(5):
        while _lives(pid):  # noqa: ASYNC110 - only its parent is notified
            await asyncio.sleep(0)


async def test_a_server_outlives_its_command(context: ToolContext) -> None:
    """A command may leave a process running, which a later command can stop."""
    async with asyncio.timeout(20), connect(context, Grant()) as run_command:
        started = json.loads(await run_command({**ASKED, "args": ["-c", "sleep 60 & echo $!"]}))
        pid = int(started["output"])
        os.kill(pid, 0)
        stopped = await run_command({**ASKED, "args": ["-c", f"kill {pid} && echo stopped"]})
    assert json.loads(stopped) == {"output": "stopped\n"}


def _lives(pid: int) -> bool:
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text(encoding="ascii")
    except OSError:
        return False


async def test_a_later_command_reaches_what_an_earlier_one_left_running(context: ToolContext) -> None:
    """Commands of one Run share a domain: a later one can kill a process of an earlier one."""
    commands = Commands(context, Grant())

    async def shell(script: str) -> str:
        async with asyncio.timeout(20):
            answer: dict[str, str] = json.loads(await commands({**ASKED, "args": ["-c", script]}))
        return answer["output"]

    started = (await shell("sleep 300 >/dev/null 2>&1 & echo $!")).strip()
    assert (await shell(f"kill {started} && echo ended")) == "ended\n"
    await commands.close()
