"""The way to the broker's socket, as a container sees it without any Landlock: open until somebody is in, then shut."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from orchestrator.broker.gate import make_gate, shut, unlock
from tests.support.places import Place, docker_place

pytestmark = pytest.mark.docker
SECONDS = 60

# Everything in it runs as the one user of the Sandbox, as a tool does that has left its Landlock domain.
PROGRAM = """
import errno, os, socket, time

def attempt(what, act):
    try: act(); print(what, 'works', flush=True)
    except OSError as error: print(what, errno.errorcode[error.errno], flush=True)

def connect(path):
    with socket.socket(socket.AF_UNIX) as end:
        end.connect(path)
        end.recv(1)  # the host's word that it has seen us, and shut the gate

gate, path = '/run/perstack/gate', '/run/perstack/gate/in/broker.sock'
inner = os.open(gate + '/in', os.O_PATH)
attempt('path before', lambda: connect(path))
attempt('path after', lambda: connect(path))
attempt('list', lambda: os.listdir(gate))
attempt('open it again', lambda: os.chmod(gate, 0o711))
attempt('move it', lambda: os.rename(gate, '/run/perstack/other'))
attempt('another in its place', lambda: os.mkdir(gate + '/in/x'))
attempt('who is in', lambda: connect(f'/proc/self/fd/{inner}/broker.sock'))
"""


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    """Give the engine, and look afterwards for containers left."""
    async with asyncio.timeout(SECONDS), docker_place(tmp_path) as found:
        yield found
    assert found.left() == []


@pytest.mark.parametrize("owner", ["the host's", "the Sandbox's own"])
async def test_only_who_was_in_gets_to_the_socket(place: Place, owner: str) -> None:
    """By its path it can be reached before the gate is shut and not after, whoever owns it on the host."""
    spec = place.spec()
    socket = make_gate(spec.state)
    if owner == "the Sandbox's own":
        for path in (socket.parent, socket.parent.parent):
            os.chown(path, place.user.uid, place.user.gid)
    seen = 0

    async def serve(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal seen
        seen += 1
        shut(spec.state)
        writer.write(b"x")
        writer.close()

    async with await asyncio.start_unix_server(serve, socket):
        os.chown(socket, place.user.uid, place.user.gid)
        async with place.connect(PROGRAM) as backend, backend.launch(spec) as sandbox:
            lines = [line.decode() async for line in sandbox.lines()]
        unlock(spec.state)
    assert lines == [
        "path before works",
        "path after EACCES",
        "list EACCES",
        "open it again EROFS",
        "move it EBUSY",
        "another in its place EACCES",
        "who is in works",
    ]
    assert seen == 2
