"""Duties of the first process: forbid inspection of itself, reap orphans, and kill all others before it exits.

A process backend's runtime is not process 1, but takes that role for its descendants, as their subreaper.
"""

import asyncio
import ctypes
import os
import signal
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from types import FrameType

from orchestrator.runtime.landlock import libc

_PR_SET_DUMPABLE = 4
_PR_SET_CHILD_SUBREAPER = 36
_WNOTHREAD = 0x20000000  # linux/wait.h: leave alone the children of other threads
_POLL_SECONDS = 0.002
_KILL_SECONDS = 2.0


def become_init() -> None:
    """Take over the duties of process 1; call it first, in the main thread.

    Orphans become children of the main thread. `confine` starts processes from other threads. The handler reaps only
    children of the main thread, so it never takes their exit codes. Therefore the main thread must not start processes.

    Raises:
        OSError: the kernel refused.
    """
    for option, value in ((_PR_SET_DUMPABLE, 0), (_PR_SET_CHILD_SUBREAPER, 1)):
        if libc().prctl(option, value, 0, 0, 0) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
    signal.signal(signal.SIGCHLD, _reap_orphans)


async def kill_other_processes() -> bool:
    """Kill all other processes of the container, or all descendants outside a container, until none is left.

    Return False if some still live after two seconds: stuck in the kernel, where no signal reaches them.
    """
    try:
        async with asyncio.timeout(_KILL_SECONDS):
            while others := _others():
                # Killing -1 is atomic: no process can escape it by forking.
                for pid in (-1,) if os.getpid() == 1 else others:
                    with suppress(ProcessLookupError, PermissionError):
                        os.kill(pid, signal.SIGKILL)
                await asyncio.sleep(_POLL_SECONDS)
    except TimeoutError:
        return False
    return True


def _others() -> set[int]:
    parents = dict(_living())
    me = os.getpid()
    if me == 1:
        return parents.keys() - {me}
    return {pid for pid in parents if pid != me and _is_descendant(pid, me, parents)}


def _is_descendant(pid: int, ancestor: int, parents: dict[int, int]) -> bool:
    for _ in range(len(parents)):
        if pid == ancestor:
            return True
        pid = parents.get(pid, 0)
    return pid == ancestor


def _living() -> Iterable[tuple[int, int]]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with suppress(OSError):
                # The command's name, in parentheses, may contain anything.
                state, parent, *_ = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()
                if state not in "ZX":
                    yield int(entry.name), int(parent)


def _reap_orphans(_signal: int, _frame: FrameType | None) -> None:
    with suppress(ChildProcessError):
        while os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | _WNOTHREAD):
            pass
