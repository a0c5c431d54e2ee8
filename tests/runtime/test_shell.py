"""A program for a person, as the Sandbox starts it: here the test is the person's end of the connection."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from orchestrator.runtime import shell
from orchestrator.runtime.link import Link
from orchestrator.runtime.surroundings import Surroundings
from orchestrator.runtime.way import Connection
from orchestrator.wire.link import frame, read_frame
from orchestrator.wire.shell import OUTWARD, Ended, Resized, Screen, Shell, Shown, Typed
from tests.support import inside

SECONDS = 20
# Writes `closed` when nobody has its terminal open any more, and ends when there is `go`.
_LEAVES_ITS_TERMINAL = """
exec </dev/null >/dev/null 2>&1
touch closed
until test -e go; do sleep 0.05; done
exit 9
"""


@dataclass
class Person:
    """Who sits at the other end."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def sees(self, data: bytes) -> bool:
        """Say whether that is what is shown next."""
        said = await read_frame(self.reader, OUTWARD)
        return isinstance(said, Shown) and said.data == data

    async def see_end(self) -> Ended:
        """Read until the program is over."""
        while isinstance(said := await read_frame(self.reader, OUTWARD), Shown):
            pass
        return said


@dataclass
class _Way:
    """Stands where the link to a broker would."""

    connection: Connection

    async def open_terminal(self) -> Connection:
        return self.connection


@asynccontextmanager
async def opened(place: Surroundings, script: str) -> AsyncIterator[Person]:
    """Start a script at a terminal."""
    here, there = socket.socketpair()
    person = Person(*await asyncio.open_connection(sock=here))
    link = cast("Link", _Way(await asyncio.open_connection(sock=there)))
    asked = Shell(run=inside.RUN, command=("sh", "-c", script), screen=Screen(kind="xterm", rows=24, columns=80))
    with closing(person.writer):
        async with asyncio.timeout(SECONDS), asyncio.TaskGroup() as tasks:
            tasks.create_task(shell.work(asked, link, place))
            yield person
            person.writer.close()


async def comes(path: Path) -> None:
    """Wait until a file is there."""
    while not path.exists():  # noqa: ASYNC110, ASYNC240 - it comes from a program that has no other way to say so
        await asyncio.sleep(0.01)


async def test_a_program_that_left_its_terminal_outlives_a_resize(tmp_path: Path) -> None:
    """The size is of no use to it any more; it ends when it wants to, with its own code."""
    place = inside.surroundings(tmp_path)
    async with opened(place, _LEAVES_ITS_TERMINAL) as person:
        await comes(place.workspace / "closed")
        person.writer.write(frame(Resized(rows=10, columns=20)))
        ending = asyncio.create_task(person.see_end())
        done, _ = await asyncio.wait((ending,), timeout=0.5)
        assert not done
        (place.workspace / "go").touch()
        assert await ending == Ended(code=9)


async def test_a_resize_reaches_no_other_terminal(tmp_path: Path) -> None:
    """Whatever is opened once a program has left its own, under the numbers that are free then."""
    place = inside.surroundings(tmp_path)
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
        assert await ending == Ended(code=9)
        assert sizes == {os.terminal_size((0, 0))}


async def test_a_resize_is_seen_by_a_program_at_its_terminal(tmp_path: Path) -> None:
    """And no descriptor is left open once it is over."""
    place = inside.surroundings(tmp_path)
    before = _terminals()
    async with opened(place, "stty -echo; stty size; read -r _; stty size") as person:
        assert await person.sees(b"24 80\r\n")
        person.writer.write(frame(Resized(rows=10, columns=20)) + frame(Typed(data=b"\n")))
        assert await person.sees(b"10 20\r\n")
        assert await person.see_end() == Ended(code=0)
    assert _terminals() == before


def _terminals() -> int:
    return sum(os.path.realpath(number).endswith("/ptmx") for number in Path("/proc/self/fd").iterdir())
