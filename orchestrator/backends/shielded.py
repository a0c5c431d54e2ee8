"""Work that must not be left half done."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def shielded(work: Coroutine[Any, Any, T]) -> T:
    """Do `work` to its end though the caller is cancelled meanwhile; the cancellation is raised after it.

    Unlike `asyncio.shield` it never leaves the work running behind. The work must have a bound of its own.
    """
    # A TaskGroup would pass the cancellation on to the work; here the task is always awaited, by this very call.
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        if not task.cancelled() and (failure := task.exception()) is not None:
            cancelled.add_note(str(failure))
        raise cancelled
    return task.result()
