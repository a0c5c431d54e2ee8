import asyncio
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from orchestrator.runtime.domain import exec_home
from orchestrator.runtime.surroundings import Surroundings
from orchestrator.runtime.tools import ToolError
from orchestrator.runtime.tools.exec import Commands, connect, execute
from orchestrator.wire.run import Grant
from tests.support import inside

ASKED: Mapping[str, Any] = {"command": "sh", "env": {}, "cwd": ".", "stdout": True, "stderr": True}


@pytest.fixture
def surroundings(tmp_path: Path) -> Surroundings:
    """A Sandbox's directories."""
    return inside.surroundings(tmp_path)


async def run(surroundings: Surroundings, script: str, grant: Grant | None = None, **more: Any) -> dict[str, Any]:
    """Run a shell script; give its result, also of a failure."""
    args = {**ASKED, "args": ["-c", script], **more}
    try:
        async with asyncio.timeout(20):
            result: dict[str, Any] = json.loads(await execute(args, surroundings, grant or Grant()))
            return result
    except ToolError as error:
        return dict(error.result)


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
async def test_f6_results(
    surroundings: Surroundings, script: str, more: dict[str, Any], expected: dict[str, Any]
) -> None:
    """Only selected streams come back; failures are sentences (F6)."""
    assert await run(surroundings, script, **more) == expected


async def test_e2_e3_f6_environment(surroundings: Surroundings) -> None:
    """A command sees the base list, what was granted, what was asked for, and no protected name (E2, E3)."""
    grant = Grant(env={"GRANTED": "1"}, proxy_credential="abc")
    result = await run(surroundings, "env", grant, env={"ASKED": "2", "Ld_Preload": "/evil.so", "PATH": "/evil"})
    url, local = "http://x:abc@127.0.0.1:9", "localhost,127.0.0.1"
    home = str(exec_home(surroundings))
    assert dict(line.split("=", 1) for line in result["output"].splitlines()) == {
        "PATH": surroundings.path,
        "HOME": home,
        "TMPDIR": home,
        "TERM": "dumb",
        "LANG": "C.UTF-8",
        "PWD": str(surroundings.workspace),
        "GRANTED": "1",
        "ASKED": "2",
        "NODE_USE_ENV_PROXY": "1",
        **dict.fromkeys(("HTTPS_PROXY", "HTTP_PROXY", "https_proxy", "http_proxy"), url),
        **dict.fromkeys(("NO_PROXY", "no_proxy"), local),
    }


async def test_working_directory(surroundings: Surroundings) -> None:
    """A command runs where it was told to, which is never outside."""
    (surroundings.workspace / "sub").mkdir()
    (surroundings.workspace / "link").symlink_to("/etc")
    assert await run(surroundings, "pwd", cwd="/workspace/sub") == {"output": f"{surroundings.workspace}/sub\n"}
    for outside in ("..", "/etc", "link"):
        assert "error" in await run(surroundings, "pwd", cwd=outside)


async def test_f6_too_much_output(surroundings: Surroundings) -> None:
    """A command that writes without end is stopped, and a sample of what it wrote comes back."""
    assert await run(surroundings, "yes", stderr=False) == {
        "error": "the command was stopped: it wrote more than 10 MiB; write to a file instead",
        "stdout": "y\n" * 2048,
    }


async def test_a_timeout_ends_the_whole_group(surroundings: Surroundings) -> None:
    """What a command started dies with it when it takes too long."""
    result = await run(surroundings, "sleep 60 & echo $!; wait", timeout=300)
    pid = int(result["stdout"])
    async with asyncio.timeout(5):
        while _lives(pid):  # noqa: ASYNC110 - the kernel tells nobody but its parent
            await asyncio.sleep(0)


async def test_a_server_outlives_its_command(surroundings: Surroundings) -> None:
    """A command may leave something running, which a later one can stop."""
    async with asyncio.timeout(20), connect(surroundings, Grant()) as run_command:
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


async def test_a_later_command_reaches_what_an_earlier_one_left_running(surroundings: Surroundings) -> None:
    """Commands of one Run share a domain: what one has started, another can end."""
    commands = Commands(surroundings, Grant())

    async def shell(script: str) -> str:
        async with asyncio.timeout(20):
            answer: dict[str, str] = json.loads(await commands({**ASKED, "args": ["-c", script]}))
        return answer["output"]

    started = (await shell("sleep 300 >/dev/null 2>&1 & echo $!")).strip()
    assert (await shell(f"kill {started} && echo ended")) == "ended\n"
    await commands.close()
