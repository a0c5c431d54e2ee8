"""A program for a user, as the Sandbox starts it; the test is the user's end of the connection."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from orchestrator.runtime import shell_program
from orchestrator.runtime.link import Link
from orchestrator.runtime.tool_context import ToolContext
from orchestrator.runtime.transport import Connection
from orchestrator.wire.frames import frame, read_frame
from orchestrator.wire.terminal import OUTWARD, ProgramEnded, Resized, Shell, Shown, TerminalInfo, Typed
from tests.support import tool_contexts

SECONDS = 20
# Writes `closed` when no process has its terminal open any longer, and exits when `go` exists.
_LEAVES_ITS_TERMINAL = """
exec </dev/null >/dev/null 2>&1
touch closed
until test -e go; do sleep 0.05; done
exit 9
"""


@dataclass
class Person:
    """The user's end of the connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def sees(self, data: bytes) -> bool:
        """Return whether the next output is `data`, which may come in several frames."""
        shown = b""
        while shown != data and data.startswith(shown):
            said = await read_frame(self.reader, OUTWARD)
            if not isinstance(said, Shown):
                return False
            shown += said.data
        return shown == data

    async def see_end(self) -> ProgramEnded:
        """Read until the program has ended."""
        while isinstance(said := await read_frame(self.reader, OUTWARD), Shown):
            pass
        return said


@dataclass
class _Way:
    """Replaces the link to a broker."""

    connection: Connection

    async def open_terminal(self) -> Connection:
        return self.connection


@asynccontextmanager
async def opened(place: ToolContext, script: str) -> AsyncIterator[Person]:
    """Start a script on a terminal."""
    here, there = socket.socketpair()
    person = Person(*await asyncio.open_connection(sock=here))
    link = cast("Link", _Way(await asyncio.open_connection(sock=there)))
    asked = Shell(
        run=tool_contexts.RUN, command=("sh", "-c", script), screen=TerminalInfo(kind="xterm", rows=24, columns=80)
    )
    with closing(person.writer):
        async with asyncio.timeout(SECONDS), asyncio.TaskGroup() as tasks:
            tasks.create_task(shell_program.work(asked, link, place))
            yield person
            person.writer.close()


async def comes(path: Path) -> None:
    """Wait until a file exists."""
    while not path.exists():  # noqa: ASYNC110, ASYNC240 - it comes from a program that has no other way to say so
        await asyncio.sleep(0.01)


async def test_a_program_that_left_its_terminal_outlives_a_resize(tmp_path: Path) -> None:
    """A resize after the terminal is closed does not end the program; it ends with its own exit code."""
    place = tool_contexts.context(tmp_path)
    async with opened(place, _LEAVES_ITS_TERMINAL) as person:
        await comes(place.workspace / "closed")
        person.writer.write(frame(Resized(rows=10, columns=20)))
        ending = asyncio.create_task(person.see_end())
        done, _ = await asyncio.wait((ending,), timeout=0.5)
        assert not done
        (place.workspace / "go").touch()
        assert await ending == ProgramEnded(code=9)


async def test_a_resize_reaches_no_other_terminal(tmp_path: Path) -> None:
    """A terminal opened later, possibly under the same descriptor number, is not resized."""
    place = tool_contexts.context(tmp_path)
    async with opened(place, _LEAVES_ITS_TERMINAL) as person:
        await comes(place.workspace / "closed")
        await asyncio.sleep(0.1)
        others = os.openpty()
        person.writer.write(frame(Resized(rows=10, columns=20)))
        ending = asyncio.create_task(person.see_end())
        await asyncio.wait((ending,), timeout=0.5)
        sizes = {os.get_terminal_size(other) for other in others}
        for other in others:
            os.close(other)
        (place.workspace / "go").touch()
        assert await ending == ProgramEnded(code=9)
        assert sizes == {os.terminal_size((0, 0))}


async def test_a_resize_is_seen_by_a_program_at_its_terminal(tmp_path: Path) -> None:
    """The program gets the new size, and no descriptor stays open after its end."""
    place = tool_contexts.context(tmp_path)
    before = _terminals()
    async with opened(place, "stty -echo; stty size; read -r _; stty size") as person:
        assert await person.sees(b"24 80\r\n")
        person.writer.write(frame(Resized(rows=10, columns=20)) + frame(Typed(data=b"\n")))
        assert await person.sees(b"10 20\r\n")
        assert await person.see_end() == ProgramEnded(code=0)
    assert _terminals() == before


def _terminals() -> int:
    return sum(os.path.realpath(number).endswith("/ptmx") for number in Path("/proc/self/fd").iterdir())
