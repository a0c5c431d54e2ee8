"""The broker's socket, from a container without Landlock: reachable until the Sandbox has connected, then closed."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from orchestrator.sandbox.socket_directory import make_socket_directory, seal, unseal
from tests.support.backend_kinds import BackendKind, docker_place

pytestmark = pytest.mark.docker
SECONDS = 60

# All of it runs as the Sandbox's one user, like a tool that has escaped its Landlock domain.
PROGRAM = """
import errno, os, socket, time

def attempt(what, act):
    try: act(); print(what, 'works', flush=True)
    except OSError as error: print(what, errno.errorcode[error.errno], flush=True)

def connect(path):
    with socket.socket(socket.AF_UNIX) as end:
        end.connect(path)
        end.recv(1)  # the host has seen the connection and sealed the directory

directory, path = '/run/perstack/gate', '/run/perstack/gate/in/broker.sock'
inner = os.open(directory + '/in', os.O_PATH)
attempt('path before', lambda: connect(path))
attempt('path after', lambda: connect(path))
attempt('list', lambda: os.listdir(directory))
attempt('open it again', lambda: os.chmod(directory, 0o711))
attempt('move it', lambda: os.rename(directory, '/run/perstack/other'))
attempt('another in its place', lambda: os.mkdir(directory + '/in/x'))
attempt('who is in', lambda: connect(f'/proc/self/fd/{inner}/broker.sock'))
"""


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[BackendKind]:
    """Give the engine, and check afterwards for containers left."""
    async with asyncio.timeout(SECONDS), docker_place(tmp_path) as found:
        yield found
    assert found.left() == []


@pytest.mark.parametrize("owner", ["the host's", "the Sandbox's own"])
async def test_only_a_process_that_was_connected_reaches_the_socket(place: BackendKind, owner: str) -> None:
    """The path works before the socket directory is sealed and not afterwards, whichever user owns it on the host."""
    spec = place.spec()
    socket = make_socket_directory(spec.state)
    if owner == "the Sandbox's own":
        for path in (socket.parent, socket.parent.parent):
            os.chown(path, place.user.uid, place.user.gid)
    seen = 0

    async def serve(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal seen
        seen += 1
        seal(spec.state)
        writer.write(b"x")
        writer.close()

    async with await asyncio.start_unix_server(serve, socket):
        os.chown(socket, place.user.uid, place.user.gid)
        async with place.connect(PROGRAM) as backend, backend.launch(spec) as sandbox:
            lines = [line.decode() async for line in sandbox.lines()]
        unseal(spec.state)
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
