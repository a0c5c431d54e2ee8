import asyncio
import os
import socket
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from orchestrator.runtime import landlock
from orchestrator.runtime.confinement import confine
from orchestrator.runtime.domain import Domain, exec_domain, skill_domain, skill_home
from orchestrator.wire.facts import NEWEST_LANDLOCK, left_open, shortfall
from tests.support import tool_contexts

VERSIONS = range(1, NEWEST_LANDLOCK + 1)
OPEN = Domain(write=(Path("/"),))


@dataclass(frozen=True)
class Neighbourhood:
    """The resources that a process in a domain might try to access."""

    workspace: Path
    secret: Path
    home: Path
    neighbour: int
    port: int
    other_port: int
    abstract: str
    domain: Domain


@pytest.fixture
async def around(tmp_path: Path) -> AsyncIterator[Neighbourhood]:
    """A workspace, a secret in the state directory, a process and two servers outside, and a skill's domain."""
    context = tool_contexts.context(tmp_path)
    secret = context.state / "secret"
    secret.write_text("secret")
    home = skill_home(context, "mine")
    home.mkdir(parents=True)
    fd = os.open(context.workspace, os.O_PATH)
    # As unprivileged as the others: a process with more capabilities cannot be inspected in any case.
    async with confine(OPEN, 0) as outside:
        neighbour = await outside.start(("sleep", "60"), env={"PATH": "/usr/bin:/bin"}, cwd=fd)
        with (
            socket.create_server(("127.0.0.1", 0)) as mine,
            socket.create_server(("127.0.0.1", 0)) as other,
            socket.socket(socket.AF_UNIX) as nameless,
        ):
            port = mine.getsockname()[1]
            nameless.bind("\0" + str(tmp_path))
            nameless.listen()
            yield Neighbourhood(
                workspace=context.workspace,
                secret=secret,
                home=home,
                neighbour=neighbour.pid,
                port=port,
                other_port=other.getsockname()[1],
                abstract=str(tmp_path),
                domain=skill_domain(context, home, port),
            )
    os.close(fd)


async def succeeds(code: str, domain: Domain, version: int, cwd: Path) -> bool:
    """Run Python in a domain and return whether it succeeded; only PermissionError counts as failure."""
    wrapped = f"import os, socket\ntry:\n    {code}\nexcept PermissionError:\n    raise SystemExit(13)"
    fd = os.open(cwd, os.O_PATH)
    try:
        async with asyncio.timeout(20), confine(domain, version) as spawner:
            child = await spawner.start((sys.executable, "-I", "-S", "-c", wrapped), env={}, cwd=fd)
            code_of_exit = await child.wait()
            stderr = await child.stderr.read()
            assert code_of_exit in (0, 13), stderr.decode()
            return code_of_exit == 0
    finally:
        os.close(fd)


Temptation = Callable[[Neighbourhood], str]
ALLOWED: dict[str, Temptation] = {
    "read /etc": lambda _: "open('/etc/passwd').read()",
    "write the workspace": lambda around: f"open({str(around.workspace / 'new')!r}, 'w').write('x')",
    "move between its directories": lambda _: (
        "os.mkdir('d'); os.mkdir('e'); open('d/f', 'w').close(); os.rename('d/f', 'e/f')"
    ),
    "write its home": lambda around: f"open({str(around.home / 'new')!r}, 'w').write('x')",
    "write /dev/null": lambda _: "open('/dev/null', 'w').write('x')",
    "run a program": lambda _: "assert os.spawnv(os.P_WAIT, '/bin/sh', ['sh', '-c', 'exit 3']) == 3",
    "connect to its proxy": lambda around: f"socket.create_connection(('127.0.0.1', {around.port}))",
}
REFUSED: dict[str, tuple[int, Temptation]] = {
    "read the state": (1, lambda around: f"open({str(around.secret)!r}).read()"),
    "list the state": (1, lambda around: f"os.listdir({str(around.secret.parent)!r})"),
    "write outside": (1, lambda around: f"open({str(around.secret.parent.parent / 'new')!r}, 'w')"),
    "write another home": (1, lambda around: f"open({str(around.home.parent / 'new')!r}, 'w')"),
    "read a neighbour's environ": (1, lambda around: f"open('/proc/{around.neighbour}/environ').read()"),
    "read a neighbour's memory map": (1, lambda around: f"open('/proc/{around.neighbour}/maps').read()"),
    "open a neighbour's files": (1, lambda around: f"open('/proc/{around.neighbour}/fd/2', 'w')"),
    "truncate outside": (3, lambda around: f"os.truncate({str(around.secret)!r}, 0)"),
    "connect elsewhere": (4, lambda around: f"socket.create_connection(('127.0.0.1', {around.other_port}))"),
    "bind a port": (4, lambda _: "socket.create_server(('127.0.0.1', 0))"),
    "signal a neighbour": (6, lambda around: f"os.kill({around.neighbour}, 0)"),
    "connect to an abstract socket": (
        6,
        lambda around: f"socket.socket(socket.AF_UNIX).connect(chr(0) + {around.abstract!r})",
    ),
}
NEEDS_REFER = "move between its directories"


@pytest.fixture(params=VERSIONS)
def version(request: pytest.FixtureRequest) -> int:
    """Each version of Landlock that a kernel may have, selected explicitly; this kernel must support it."""
    asked: int = request.param
    if landlock.abi() < asked:
        pytest.skip(f"this kernel has Landlock ABI {landlock.abi()}")
    return asked


@pytest.mark.parametrize("name", ALLOWED)
async def test_a_skill_can_do_its_work(around: Neighbourhood, name: str, version: int) -> None:
    """It works with every version, except that the first one refuses to move a file to another directory."""
    if name == NEEDS_REFER and version == 1:
        with pytest.raises(AssertionError, match="Invalid cross-device link"):
            await succeeds(ALLOWED[name](around), around.domain, version, around.workspace)
        return
    assert await succeeds(ALLOWED[name](around), around.domain, version, around.workspace)


@pytest.mark.parametrize("name", REFUSED)
async def test_a_skill_reaches_nothing_of_its_neighbours(around: Neighbourhood, name: str, version: int) -> None:
    """Access is refused from the version that supports it; without a domain the same code works."""
    since, temptation = REFUSED[name]
    code = temptation(around)
    assert await succeeds(code, OPEN, 0, around.workspace), "the control failed: the test proves nothing"
    around.secret.write_text("secret")
    assert await succeeds(code, around.domain, version, around.workspace) is (version < since)


def test_explain_lists_what_each_version_leaves_open() -> None:
    """The sentence of `explain` lists an access exactly as long as the tests above find it open."""
    words = {1: "files and processes", 3: "truncating files", 4: "TCP ports", 6: "signals and abstract sockets"}
    assert {since for since, _ in REFUSED.values()} == words.keys()
    for each in (0, *VERSIONS):
        assert left_open(each) == tuple(word for since, word in words.items() if since > each)


async def test_second_command_reaches_first(around: Neighbourhood) -> None:
    """Processes of one spawner can signal each other."""
    fd = os.open(around.workspace, os.O_PATH)
    async with asyncio.timeout(20), confine(around.domain) as spawner:
        first = await spawner.start(("sleep", "60"), env={"PATH": "/usr/bin:/bin"}, cwd=fd)
        second = await spawner.start(("sh", "-c", f"kill {first.pid}"), env={"PATH": "/usr/bin:/bin"}, cwd=fd)
        assert (await second.wait(), await first.wait()) == (0, -15)
    os.close(fd)


def test_exec_and_skills_share_only_the_workspace(tmp_path: Path) -> None:
    """The only directory writable for both `exec` and a skill is the workspace."""
    context = tool_contexts.context(tmp_path)
    home = skill_home(context, "a/../b")
    of_exec, of_skill = exec_domain(context), skill_domain(context, home, None)
    assert set(of_exec.write) & set(of_skill.write) == {context.workspace}
    assert home.parent == context.state / "tmp" / "skills"
    assert (of_exec.connect, of_skill.connect) == (None, ())


def test_readable_path_never_holds_the_state(tmp_path: Path) -> None:
    """A PATH above the state directory does not make it readable."""
    context = tool_contexts.context(tmp_path)
    wide = replace(context, path=f"relative:{tmp_path}:/:/opt/bin")
    readable = exec_domain(wide).read
    assert Path("/opt/bin") in readable
    assert {tmp_path, Path("/"), Path("relative")} & set(readable) == set()


def test_shortfall_names_what_is_missing() -> None:
    """The sentence lists what the kernel does not support."""
    assert shortfall(NEWEST_LANDLOCK) is None
    assert shortfall(3) == (
        "this kernel (Landlock ABI 3) does not isolate a Sandbox's tools in: TCP ports, signals and abstract sockets"
    )
