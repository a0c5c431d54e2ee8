"""The duties of the first process: it cannot be looked into, reaps orphans, and ends all others before it ends.

A process backend's runtime is not process 1, but takes its place for all that it starts, by being their subreaper.
"""

import asyncio
import ctypes
import os
import signal
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from types import FrameType

_PR_SET_DUMPABLE = 4
_PR_SET_CHILD_SUBREAPER = 36
_WNOTHREAD = 0x20000000  # linux/wait.h: leave alone the children of other threads
_PAUSE_SECONDS = 0.002
_PATIENCE_SECONDS = 2.0


def become_init() -> None:
    """Become what process 1 has to be; call it first, in the main thread.

    Orphans become children of the main thread, while what `confine` starts are children of its threads. So reaping
    those of the main thread alone can never take an exit code that somebody waits for; the main thread therefore must
    start no process itself.

    Raises:
        OSError: the kernel refused.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    for option, value in ((_PR_SET_DUMPABLE, 0), (_PR_SET_CHILD_SUBREAPER, 1)):
        if libc.prctl(option, value, 0, 0, 0) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
    signal.signal(signal.SIGCHLD, _reap_orphans)


async def end_everything_else() -> bool:
    """Kill all other processes of the container, or all descendants outside one, until none is left.

    Gives False if some still live after two seconds: stuck in the kernel, where no signal reaches them.
    """
    try:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            while others := _others():
                # To -1 it is one stroke, which nothing can outrun by forking.
                for pid in (-1,) if os.getpid() == 1 else others:
                    with suppress(ProcessLookupError, PermissionError):
                        os.kill(pid, signal.SIGKILL)
                await asyncio.sleep(_PAUSE_SECONDS)
    except TimeoutError:
        return False
    return True


def _others() -> set[int]:
    parents = dict(_living())
    me = os.getpid()
    if me == 1:
        return parents.keys() - {me}
    return {pid for pid in parents if pid != me and _descends(pid, me, parents)}


def _descends(pid: int, ancestor: int, parents: dict[int, int]) -> bool:
    for _ in range(len(parents)):
        if pid == ancestor:
            return True
        pid = parents.get(pid, 0)
    return pid == ancestor


def _living() -> Iterable[tuple[int, int]]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with suppress(OSError):
                # The command's name, in parentheses, may hold anything.
                state, parent, *_ = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()
                if state not in "ZX":
                    yield int(entry.name), int(parent)


def _reap_orphans(_signal: int, _frame: FrameType | None) -> None:
    with suppress(ChildProcessError):
        while os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | _WNOTHREAD):
            pass
