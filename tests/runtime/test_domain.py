import asyncio
import os
import socket
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from orchestrator.runtime import landlock
from orchestrator.runtime.confine import enclose
from orchestrator.runtime.domain import Domain, exec_domain, skill_domain, skill_home
from orchestrator.wire.facts import NEWEST_LANDLOCK, left_open, shortfall
from tests.support import inside

VERSIONS = range(1, NEWEST_LANDLOCK + 1)
OPEN = Domain(write=(Path("/"),))


@dataclass(frozen=True)
class Neighbourhood:
    """What a process in a domain may be tempted by."""

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
    surroundings = inside.surroundings(tmp_path)
    secret = surroundings.state / "secret"
    secret.write_text("secret")
    home = skill_home(surroundings, "mine")
    home.mkdir(parents=True)
    fd = os.open(surroundings.workspace, os.O_PATH)
    # As unprivileged as the others: nobody looks into a process that has capabilities which they lack.
    async with enclose(OPEN, 0) as outside:
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
                workspace=surroundings.workspace,
                secret=secret,
                home=home,
                neighbour=neighbour.pid,
                port=port,
                other_port=other.getsockname()[1],
                abstract=str(tmp_path),
                domain=skill_domain(surroundings, home, port),
            )
    os.close(fd)


async def succeeds(code: str, domain: Domain, version: int, cwd: Path) -> bool:
    """Run Python in a domain and tell whether it worked; PermissionError is the one failure that counts."""
    wrapped = f"import os, socket\ntry:\n    {code}\nexcept PermissionError:\n    raise SystemExit(13)"
    fd = os.open(cwd, os.O_PATH)
    try:
        async with asyncio.timeout(20), enclose(domain, version) as enclosure:
            child = await enclosure.start((sys.executable, "-I", "-S", "-c", wrapped), env={}, cwd=fd)
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
    """Each version of Landlock that a kernel may have, asked for explicitly; this one's own must reach as far."""
    asked: int = request.param
    if landlock.abi() < asked:
        pytest.skip(f"this kernel has Landlock ABI {landlock.abi()}")
    return asked


@pytest.mark.parametrize("name", ALLOWED)
async def test_a_skill_can_do_its_work(around: Neighbourhood, name: str, version: int) -> None:
    """On every kernel; but the first version knows no right to move a file to another directory and refuses it."""
    if name == NEEDS_REFER and version == 1:
        with pytest.raises(AssertionError, match="Invalid cross-device link"):
            await succeeds(ALLOWED[name](around), around.domain, version, around.workspace)
        return
    assert await succeeds(ALLOWED[name](around), around.domain, version, around.workspace)


@pytest.mark.parametrize("name", REFUSED)
async def test_a_skill_reaches_nothing_of_its_neighbours(around: Neighbourhood, name: str, version: int) -> None:
    """Just from the version on that can refuse it; outside a domain the same works, so it is the domain that does."""
    since, temptation = REFUSED[name]
    code = temptation(around)
    assert await succeeds(code, OPEN, 0, around.workspace), "the control failed: the test proves nothing"
    around.secret.write_text("secret")
    assert await succeeds(code, around.domain, version, around.workspace) is (version < since)


def test_what_each_version_leaves_open_is_said() -> None:
    """The sentence of `explain` names a thing as long as the tests above find it open, and no longer."""
    words = {1: "files and processes", 3: "truncating files", 4: "TCP ports", 6: "signals and abstract sockets"}
    assert {since for since, _ in REFUSED.values()} == words.keys()
    for each in (0, *VERSIONS):
        assert left_open(each) == tuple(word for since, word in words.items() if since > each)


async def test_second_command_reaches_first(around: Neighbourhood) -> None:
    """Processes of one enclosure can signal each other."""
    fd = os.open(around.workspace, os.O_PATH)
    async with asyncio.timeout(20), enclose(around.domain) as enclosure:
        first = await enclosure.start(("sleep", "60"), env={"PATH": "/usr/bin:/bin"}, cwd=fd)
        second = await enclosure.start(("sh", "-c", f"kill {first.pid}"), env={"PATH": "/usr/bin:/bin"}, cwd=fd)
        assert (await second.wait(), await first.wait()) == (0, -15)
    os.close(fd)


def test_exec_and_skills_share_only_the_workspace(tmp_path: Path) -> None:
    """What `exec` may write and what a skill may write meet in the workspace alone."""
    surroundings = inside.surroundings(tmp_path)
    home = skill_home(surroundings, "a/../b")
    of_exec, of_skill = exec_domain(surroundings), skill_domain(surroundings, home, None)
    assert set(of_exec.write) & set(of_skill.write) == {surroundings.workspace}
    assert home.parent == surroundings.state / "tmp" / "skills"
    assert (of_exec.connect, of_skill.connect) == (None, ())


def test_readable_path_never_holds_the_state(tmp_path: Path) -> None:
    """A PATH above the state directory opens nothing."""
    surroundings = inside.surroundings(tmp_path)
    wide = replace(surroundings, path=f"relative:{tmp_path}:/:/opt/bin")
    readable = exec_domain(wide).read
    assert Path("/opt/bin") in readable
    assert {tmp_path, Path("/"), Path("relative")} & set(readable) == set()


def test_shortfall_names_what_is_missing() -> None:
    """A person learns what their kernel lacks."""
    assert shortfall(NEWEST_LANDLOCK) is None
    assert shortfall(3) == (
        "this kernel (Landlock ABI 3) does not keep the tools of a Sandbox apart in: "
        "TCP ports, signals and abstract sockets"
    )
