"""A shell in the Sandbox that an Expert gets: over pipes, at a real terminal, and nothing about it that a Run lacks."""

import asyncio
import fcntl
import json
import os
import signal
import struct
import termios
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from tests.support import engine, stand_ins
from tests.support.project import COMMAND, FROM_HERE, PYTHON, Project, ended, say, use
from tests.support.pty_user import Typist, typist

pytestmark = pytest.mark.on_engines

Make = Callable[[str, Mapping[str, Sequence[Any]]], Project]

TEAM = """
[experts.one]
instruction = "Do."
delegates = ["two"]
[experts.one.skills.kit]
type = "mcpStdioSkill"
command = "python3"
args = ["server.py"]
requiredEnv = ["KIT_KEY"]
allowedDomains = ["api.example.com"]
[experts.two]
instruction = "Do."
"""
KEYS = {"KIT_KEY": "canary-kit-key", "OWN_NOTE": "canary-own-note"}
ENV = "env | sed s/=.*// | sort | tr '\\n' ' '"
BASE = "HOME LANG PATH PWD TERM TMPDIR"
PROXY = "HTTPS_PROXY HTTP_PROXY"
_LOOK = """
import json, sys
status = dict(line.split(":\\t") for line in open("/proc/self/status").read().splitlines() if ":\\t" in line)
kept = {name: status[name].strip() for name in ("Uid", "CapEff", "CapBnd", "NoNewPrivs", "Seccomp")}
kept["mounts"] = sorted(line.split()[1] + " " + line.split()[3][:2] for line in open("/proc/self/mounts"))
json.dump(kept, open(sys.argv[1], "w") if sys.argv[1:] else sys.stdout)
"""
_OWN = ("/run/perstack", "/run/mark")
"""Where each Sandbox has its own files."""


@pytest.fixture
def made(project: Make) -> Project:
    """Two Experts, the first with a skill that has a key and a host."""
    return project(TEAM, {"one": [say("done")], "two": [say("done")]})


async def over_pipes(
    made: Project, *arguments: str, words: str = "", env: Mapping[str, str] | None = None
) -> tuple[int, str, str]:
    """Run `shell` with `words` as its input; give exit code, stdout and stderr."""
    process = await made.start("shell", "--backend", made.backend, *arguments, stdin=words, env=env or KEYS)
    result = await ended(process)
    return result.code, result.stdout.decode(), result.stderr


async def test_over_pipes(made: Project) -> None:
    """What is piped in is run, its streams stay apart, and its exit code is the command's."""
    words = "echo out; echo err >&2; pwd; exit 7"
    code, stdout, stderr = await over_pipes(made, "two", words=words)
    place = "/workspace" if made.backend == "docker" else str(made.workspace)
    assert (code, stdout) == (7, f"out\n{place}\n")
    assert "err\n" in stderr
    assert ("no isolation" in stderr) is (made.backend == "process")


async def test_a_command_in_place_of_a_shell(made: Project) -> None:
    """Much output arrives complete; a command that cannot be started, or is killed, ends with the code of a shell."""
    assert await over_pipes(made, "two", "--", "sh", "-c", "cat; seq 1 200000 | tail -n 1", words="x" * 1000) == (
        0,
        "x" * 1000 + "200000\n",
        *(await over_pipes(made, "two", "--", "true"))[2:],
    )
    assert (await over_pipes(made, "two", "--", "sh", "-c", "kill -9 $$"))[0] == 137
    code, _, stderr = await over_pipes(made, "two", "--", "no-such-program")
    assert (code, "no-such-program: No such file or directory" in stderr) == (127, True)
    assert (await over_pipes(made, "two", "--", "/etc/passwd"))[0] == 126


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (("one",), BASE),
        (("one", "--env", "OWN_NOTE"), f"{BASE} OWN_NOTE"),
        (("one", "--skill", "kit"), f"{BASE} KIT_KEY {PROXY}"),
        (("two",), BASE),
    ],
)
async def test_each_has_its_own_environment(made: Project, arguments: tuple[str, ...], names: str) -> None:
    """`exec` and a skill see what they are granted, a delegate nothing of its coordinator's."""
    code, stdout, stderr = await over_pipes(made, *arguments, "--", "sh", "-c", ENV)
    assert code == 0, stderr
    seen = set(stdout.split()) - {"NODE_USE_ENV_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"}
    assert seen == set(names.split())


async def test_a_blocked_host_is_reported(made: Project) -> None:
    """The user sees why not, and which line would allow it."""
    tried = "import urllib.request as r\ntry: r.urlopen('https://other.example.com/')\nexcept OSError as e: print(e)"
    code, stdout, stderr = await over_pipes(made, "one", "--skill", "kit", "--", PYTHON[made.backend], "-c", tried)
    assert code == 0, stderr
    allow = 'add "other.example.com" to experts."one".skills."kit".allowedDomains'
    assert allow in stdout
    assert f"kit to other.example.com:443 was blocked: other.example.com is not declared; {allow}" in stderr


async def test_what_cannot_be_opened(made: Project) -> None:
    """No such skill or Expert, or a variable without a value: one sentence, and nothing is started."""
    code, _, stderr = await over_pipes(made, "one", "--skill", "other")
    assert (code, "no skill 'other' that runs in a Sandbox; it has " in stderr) == (2, True)
    code, _, stderr = await over_pipes(made, "three")
    assert (code, "Expert 'three' is not in" in stderr) == (2, True)
    code, _, stderr = await over_pipes(made, "one", env={"OTHER": "x"})
    assert (code, "KIT_KEY (skill 'kit' of Expert 'one')" in stderr) == (2, True)


def at_terminal(made: Project, *arguments: str) -> Any:
    """Open the shell at a terminal."""
    env = {name: os.environ[name] for name in FROM_HERE if name in os.environ} | KEYS | {"TERM": "xterm-mono"}
    command = (*COMMAND, "shell", "--backend", made.backend, *arguments)
    return typist(command, made.directory, env, columns=91, lines=31)


def resize(typed: Typist, columns: int, lines: int) -> None:
    """Give the terminal another size, as a window's edge does."""
    fcntl.ioctl(typed.fd, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    os.kill(typed.process.pid, signal.SIGWINCH)


def test_at_a_terminal(made: Project) -> None:
    """A real one: its size and kind are known inside, Ctrl-C stops what runs and not the shell, the code comes out."""
    with at_terminal(made, "two", "--", "sh") as typed:
        typed.see(r"[$#] ")
        typed.type("stty size; echo kind $TERM\n")
        typed.see(r"31 91\r\n")
        typed.see(r"kind xterm-mono")
        # The program itself reports that it is there: before it has the terminal, Ctrl-C is for the shell.
        typed.type("sh -c 'echo go-$((1 + 1)); exec sleep 100' && echo not-$((1 + 2))\n")
        typed.see(r"go-2\r\n")
        typed.type("\x03")
        typed.see(r"\^C\r\n.*[$#] ")
        typed.type("echo after-$((6 * 7))\n")
        typed.see(r"after-42")
        resize(typed, 70, 20)
        typed.type("sleep 0.2; stty size\n")
        typed.see(r"20 70\r\n")
        typed.type("exit 5\n")
        assert typed.end() == 5
    assert "not-3" not in typed.text


def test_a_terminal_that_is_closed_ends_the_sandbox(made: Project) -> None:
    """Nothing is left behind, which every test here looks for."""
    with at_terminal(made, "two", "--", "sh") as typed:
        typed.see(r"[$#] ")
        typed.process.send_signal(signal.SIGHUP)
        assert typed.end() == 129


def test_prune_leaves_an_open_shell_alone(made: Project) -> None:
    """No store knows it, and a user is in it."""
    with at_terminal(made, "two", "--", "sh") as typed:
        typed.see(r"[$#] ")
        pruned = asyncio.run(made.command("prune", "--all", "--backend", made.backend))
        assert (pruned.code, pruned.stdout) == (0, b"")
        typed.type("echo still-$((1 + 1))\n")
        typed.see(r"still-2")
        typed.type("exit\n")
        assert typed.end() == 0


@pytest.mark.docker
@pytest.mark.parametrize("backend", ["docker"])
async def test_it_is_the_sandbox_of_a_run(project: Make) -> None:
    """Seen from outside and from inside the same as what a Run gets: no capability more, no mount, no other image."""
    args = ["-c", _LOOK, "run.json"]
    look = {"command": "python3", "args": args, "env": {}, "cwd": ".", "stdout": True, "stderr": True}
    made = project(TEAM, {"two": [use(("exec", look)), say("done")]})
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        watching = group.create_task(engine.inspect_started(stop))
        result = await made.run("two", "go")
        # It prints, since files of a shell do not come back from a copy of the workspace.
        code, shown, stderr = await over_pipes(made, "two", "--", "python3", "-c", _LOOK)
        stop.set()
    assert (result.code, code) == (0, 0), result.stderr + stderr
    of_run = json.loads((made.workspace / "run.json").read_text())
    assert of_run["CapEff"] == "0000000000000000"
    assert of_run == json.loads(shown)
    mine = [each for each in watching.result() if each["Config"]["Labels"].get(engine.LABEL) == made.instance]
    # Podman describes containers in another way.
    assert stand_ins.kind() == "podman" or _comparable(mine[0]) == _comparable(mine[-1])


def _comparable(inspected: Mapping[str, Any]) -> dict[str, Any]:
    """All that an inspection reports except names, deadlines, and where state and copies are."""
    host = dict(inspected["HostConfig"])
    mounts = [
        {**mount, "Source": _OWN if mount["Target"].startswith(_OWN) or mount["Type"] == "volume" else mount["Source"]}
        for mount in host["Mounts"]
    ]
    config = {key: value for key, value in inspected["Config"].items() if key not in {"Hostname", "Labels"}}
    config["Cmd"] = [word for word in config["Cmd"] if not word.isdecimal()]
    return {"host": {**host, "Mounts": mounts}, "config": config}
