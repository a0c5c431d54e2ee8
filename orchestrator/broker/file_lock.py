"""The lock under which Sandboxes change files of a workspace, one at a time.

The host holds it, since a lock in the workspace could be taken for good by whatever an Expert runs there. It serializes
the file tools of all Sandboxes of a job, and of other jobs of the same user on the same workspace.
"""

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from orchestrator.broker.claims import BrokenRuleError

HELD_SECONDS = 30
"""How long one Sandbox may hold the lock while others wait; a change of a file takes milliseconds."""

PATIENCE_SECONDS = 60
"""How long another orchestrator may hold the lock. One that holds it longer is stopped, and its changes with it."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.001, 0.05


class FileLock:
    """The lock of one workspace.

    Args:
        path: a file that other orchestrators lock too, or None for this one alone. It is made with its directory when
            it is first locked, and both are removed by `close`.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._turn = asyncio.Lock()

    @classmethod
    def of(cls, workspace: Path, root: Path | None) -> "FileLock":
        """Give the lock of `workspace`; all orchestrators that name the same `root` share it.

        Without `root`, or where nothing can be made there, it holds within this orchestrator.
        """
        try:
            # Not by device: its number may differ between the nodes of a cluster. Two workspaces that share an inode
            # number, on two disks, wait for one another, which takes milliseconds.
            return cls() if root is None else cls(root / str(workspace.stat().st_ino))
        except OSError:
            return cls()  # The launch of a Sandbox says what is wrong with the workspace.

    @asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """Hold the lock: first come, first served within this orchestrator."""
        async with self._turn:
            fd = None if self._path is None else await _locked(self._path)
            try:
                yield
            finally:
                if fd is not None:
                    os.close(fd)

    def close(self) -> None:
        """Remove the file, and its directory with the last one, unless another orchestrator holds it."""
        if self._path is None:
            return
        with suppress(OSError):
            fd = os.open(self._path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.samestat(os.fstat(fd), self._path.lstat()):
                    self._path.unlink()
            finally:
                os.close(fd)
        with suppress(OSError):
            self._path.parent.rmdir()


class FileLockCalls:
    """The lock as one Sandbox takes it: by calls, which it repeats if its connection breaks.

    `start` runs what ends with the session, and with that the lock is free.
    """

    def __init__(self, lock: FileLock, start: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]) -> None:
        self._lock = lock
        self._start = start
        self._holder: str | None = None
        self._acquired = asyncio.Event()
        self._released = asyncio.Event()

    async def take(self, call_id: str) -> None:
        """Return once the Sandbox holds the lock by the call of this id.

        Raises:
            BrokenRuleError: it holds the lock by another call, or waits for it.
        """
        if self._holder is None:
            self._holder, self._acquired, self._released = call_id, asyncio.Event(), asyncio.Event()
            _ = self._start(self._hold(self._acquired, self._released))
        elif self._holder != call_id:
            message = f"the lock on files was asked for by call {call_id!r} while call {self._holder!r} has it"
            raise BrokenRuleError(message)
        acquired = self._acquired
        await acquired.wait()

    def give_up(self, call_id: str) -> None:
        """Free the lock that the call of this id got or waits for; another one is free already."""
        if call_id == self._holder:
            self._holder = None
            self._released.set()

    async def _hold(self, acquired: asyncio.Event, released: asyncio.Event) -> None:
        async with self._lock.held():
            acquired.set()
            with suppress(TimeoutError):
                async with asyncio.timeout(HELD_SECONDS):
                    await released.wait()


async def _locked(path: Path) -> int | None:
    """Lock the file at `path`; give its descriptor, or None where that cannot be had."""
    clock, pause = asyncio.get_running_loop().time, _FIRST_PAUSE
    deadline = clock() + PATIENCE_SECONDS
    while clock() < deadline:
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            continue  # The last holder has removed the directory meanwhile.
        except OSError:
            return None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The last holder may have removed the file: then it is not the one that others lock.
            if os.path.samestat(os.fstat(fd), os.lstat(path)):
                return fd
        except (BlockingIOError, FileNotFoundError):
            pass
        except OSError:
            os.close(fd)
            return None
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
        await asyncio.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)
    return None
