"""The lock under which Sandboxes change files of a workspace, one at a time.

The host holds it, because any program of an Expert could take a lock in the workspace forever. It serializes
the file tools of all Sandboxes of a job, and of other jobs of the same user on the same workspace.
"""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from orchestrator.broker.checkpoint_validation import ProtocolViolationError
from orchestrator.disk.locks import lock_file

HELD_SECONDS = 30
"""How long one Sandbox may hold the lock while others wait; changing a file takes milliseconds."""

PATIENCE_SECONDS = 60
"""How long another orchestrator may hold the lock. After that its process counts as suspended."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.001, 0.05


class WorkspaceLock:
    """The lock of one workspace.

    Args:
        path: a file that other orchestrators lock too, or None for this one alone. It is created with its directory
            at the first lock, and `close` removes both.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._turn = asyncio.Lock()

    @classmethod
    def of(cls, workspace: Path, root: Path | None) -> "WorkspaceLock":
        """Return the lock of `workspace`; all orchestrators with the same `root` share it.

        Without `root`, or where no file can be created there, the lock works within this orchestrator only.
        """
        try:
            # Not by device: its number may differ between the nodes of a cluster. Two workspaces with one inode number,
            # on two disks, then wait for each other, for milliseconds.
            return cls() if root is None else cls(root / str(workspace.stat().st_ino))
        except OSError:
            return cls()  # The launch of a Sandbox reports the fault of the workspace.

    @classmethod
    def of_volume(cls, engine: str, name: str, root: Path | None) -> "WorkspaceLock":
        """Return the lock of a volume of an engine, by the engine's own id; as `of`."""
        digest = hashlib.sha256(f"{engine}\0{name}".encode()).hexdigest()
        return cls() if root is None else cls(root / f"volume-{digest[:32]}")

    @asynccontextmanager
    async def hold(self) -> AsyncIterator[None]:
        """Hold the lock during the block: first come, first served within this orchestrator."""
        async with self._turn:
            fd = None if self._path is None else await _locked(self._path)
            try:
                yield
            finally:
                if fd is not None:
                    os.close(fd)

    def close(self) -> None:
        """Remove the file, and its directory if empty, unless another orchestrator holds the lock."""
        if self._path is None:
            return
        with suppress(OSError):
            fd = lock_file(self._path, make=False)
            try:
                self._path.unlink()
            finally:
                os.close(fd)
        with suppress(OSError):
            self._path.parent.rmdir()


class WorkspaceLockCalls:
    """The lock for one Sandbox: taken by calls, which it repeats if its connection breaks.

    `start` runs a task that ends with the session, which frees the lock.
    """

    def __init__(self, lock: WorkspaceLock, start: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]) -> None:
        self._lock = lock
        self._start = start
        self._holder: str | None = None
        self._acquired = asyncio.Event()
        self._released = asyncio.Event()

    async def take(self, call_id: str) -> None:
        """Return once the Sandbox holds the lock by the call of this id.

        Raises:
            ProtocolViolationError: it holds the lock by another call, or waits for it.
        """
        if self._holder is None:
            self._holder, self._acquired, self._released = call_id, asyncio.Event(), asyncio.Event()
            _ = self._start(self._hold(self._acquired, self._released))
        elif self._holder != call_id:
            message = f"the lock on files was asked for by call {call_id!r} while call {self._holder!r} has it"
            raise ProtocolViolationError(message)
        acquired = self._acquired
        await acquired.wait()

    def give_up(self, call_id: str) -> None:
        """Free the lock of the call of this id, held or waited for; another call's is already free."""
        if call_id == self._holder:
            self._holder = None
            self._released.set()

    async def _hold(self, acquired: asyncio.Event, released: asyncio.Event) -> None:
        async with self._lock.hold():
            acquired.set()
            with suppress(TimeoutError):
                async with asyncio.timeout(HELD_SECONDS):
                    await released.wait()


async def _locked(path: Path) -> int | None:
    """Lock the file at `path`; return its descriptor, or None if that fails."""
    clock, pause = asyncio.get_running_loop().time, _FIRST_PAUSE
    deadline = clock() + PATIENCE_SECONDS
    while clock() < deadline:
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            return lock_file(path)
        except (BlockingIOError, FileNotFoundError):
            pass  # Another process has it, or has just removed the file or the directory.
        except OSError:
            return None
        await asyncio.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)
    return None
