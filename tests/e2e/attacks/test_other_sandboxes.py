"""From one Sandbox to another one of the same user, workspace and engine."""

import asyncio
from collections.abc import Iterator, Mapping

import pytest

from tests.support.attacks import (
    CONTAINERS,
    NO_CONTROL,
    WORKS,
    Outcomes,
    assert_refused,
    command,
    furnish,
    in_shell,
    nothing_left,
    told,
)
from tests.support.project import ONE, PYTHON, Project

pytestmark = pytest.mark.parametrize("backend", CONTAINERS, scope="module")

# Everything by which two processes of one user can meet, and then the attacks, as a control.
NEIGHBOUR = """
import ctypes, socket, subprocess, sys, time
libc = ctypes.CDLL(None)
tcp, named = socket.socket(), socket.socket(socket.AF_UNIX)
tcp.bind(('127.0.0.1', 4711)); tcp.listen(); named.bind(chr(0) + 'neighbour'); named.listen()
for path in ('/tmp/neighbour', '/dev/shm/neighbour'): open(path, 'w').close()
assert libc.shmget(4711, 4096, 0o1666) >= 0
subprocess.run(sys.argv[1:], check=True)
print('ready', flush=True)
time.sleep(100)
"""
ATTACKS: Mapping[str, tuple[str, str]] = {
    "a port at its loopback": ("reach('127.0.0.1', 4711)", "ECONNREFUSED"),
    "an abstract socket": ("socket.socket(socket.AF_UNIX).connect(chr(0) + 'neighbour')", "ECONNREFUSED"),
    "its /tmp": ("open('/tmp/neighbour')", "ENOENT"),
    "its shared memory": ("open('/dev/shm/neighbour')", "ENOENT"),
    "its System V segments": ("syscall(29, 4711, 4096, 0o666)", "ENOENT"),
    "its processes": ("[pid] = processes('4711'); os.kill(pid, 0)", "not enough values to unpack"),
}
"""Each with how it must end in another Sandbox."""


async def _both(made: Project) -> dict[str, Outcomes]:
    attacks = {name: code for name, (code, _) in ATTACKS.items()}
    words = (PYTHON[made.backend], "-c", NEIGHBOUR, *command(made, "itself", attacks))
    neighbour = await made.start("shell", "--backend", made.backend, "one", "--", *words)
    try:
        assert neighbour.stdout is not None
        async with asyncio.timeout(60):
            assert await neighbour.stdout.readline() == b"ready\n"
        found, _ = await in_shell(made, "other", attacks)
    finally:
        neighbour.terminate()
        await neighbour.communicate()
    return {"itself": told(made, "itself"), "other": found}


@pytest.fixture(scope="module")
def outcomes(backend: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, Outcomes]]:
    """All attacks, in the Sandbox itself and in the other one."""
    root = tmp_path_factory.mktemp("neighbours")
    made = Project.make(root / "project", backend, ONE, {})
    furnish(made)
    yield asyncio.run(_both(made))
    nothing_left(root, backend)


@pytest.mark.parametrize("name", ATTACKS)
def test_nothing_of_another_is_reached(outcomes: Mapping[str, Outcomes], name: str) -> None:
    """Though both are one user's and share a workspace; inside the Sandbox itself the same works."""
    assert outcomes["itself"][name] == WORKS, NO_CONTROL
    assert_refused(outcomes["other"][name], ATTACKS[name][1])
