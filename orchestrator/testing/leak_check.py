"""What a test of asyncio code may not leave: tasks, sockets, open files."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

_SECONDS = 5


def _open_files() -> set[str]:
    found = set()
    for entry in Path("/dev/fd").iterdir():
        with suppress(OSError):
            found.add(f"{entry.name} {_description(entry)}")
    return found


def _description(entry: Path) -> str:
    """Describe an open file by what Linux links it to; elsewhere by its status."""
    return str(entry.readlink() if entry.is_symlink() else os.fstat(int(entry.name)))


@asynccontextmanager
async def nothing_left() -> AsyncIterator[None]:
    """Fail if the block leaves a task, a socket or an open file behind; what is being closed has a moment for it."""
    tasks, files = asyncio.all_tasks(), _open_files()
    yield
    loop = asyncio.get_running_loop()
    deadline = loop.time() + _SECONDS
    while left := asyncio.all_tasks() - tasks - {asyncio.current_task()} or _open_files() - files:
        assert loop.time() < deadline, f"left behind: {left}"
        await asyncio.sleep(0.001)


@contextmanager
def no_child_left() -> Iterator[None]:
    """Fail if this process has a child after the block, even one that has ended."""
    yield
    try:
        child = os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return
    message = f"a child process is left: {child[0] or 'one that runs'}"
    raise AssertionError(message)
