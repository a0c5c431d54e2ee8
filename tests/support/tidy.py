"""What a test of asyncio code may not leave: tasks, sockets, open files."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

_SECONDS = 5


def _open_files() -> set[str]:
    found = set()
    for entry in Path("/proc/self/fd").iterdir():
        try:
            found.add(f"{entry.name} {entry.readlink()}")
        except OSError:
            continue
    return found


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
