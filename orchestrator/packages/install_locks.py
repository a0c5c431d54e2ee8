"""Locks of packages: one orchestrator at a time installs a package, or removes what another one left of it."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path

from orchestrator.disk.locks import lock_file
from orchestrator.store.files import make_directory, path_part, translate_os_errors

_LOCKS = ".locks"
_PAUSE = 0.1


@asynccontextmanager
async def install_locks(directory: Path, slugs: Iterable[str]) -> AsyncIterator[None]:
    """Hold the locks of packages, always taken in one order; the kernel frees them however the process ends."""
    make_directory(directory / _LOCKS, exist_ok=True)
    async with AsyncExitStack() as stack:
        for slug in sorted(slugs):
            # The holder is another process, which sends no notification.
            while (lock := _try_lock(directory, slug)) is None:  # noqa: ASYNC110
                await asyncio.sleep(_PAUSE)
            stack.callback(os.close, lock)
        yield


@contextmanager
def lock_if_free(directory: Path, slug: str) -> Iterator[bool]:
    """Hold the lock of a package during the block, unless another process has it; yield whether it is held.

    Where nothing was ever installed in `directory`, no other process can have it.

    Raises:
        DiskError: the disk refuses.
    """
    try:
        lock = _try_lock(directory, slug)
    except FileNotFoundError:
        yield True
        return
    try:
        yield lock is not None
    finally:
        if lock is not None:
            os.close(lock)


def _try_lock(directory: Path, slug: str) -> int | None:
    path = directory / _LOCKS / path_part(slug)
    with translate_os_errors(path):
        try:
            return lock_file(path)
        except BlockingIOError:
            return None
