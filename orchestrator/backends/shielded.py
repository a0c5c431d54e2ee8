"""Work that must not be left half done."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, asynccontextmanager
from typing import Any, TypeVar

T = TypeVar("T")

# Of its own: in the loop's, what takes long would keep writes to the disk waiting.
_THREADS = ThreadPoolExecutor(32, "apart")


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


async def apart(work: Callable[[], T]) -> T:
    """Do blocking `work` in a thread to its end, as `shielded` does, while all else goes on."""

    async def done() -> T:
        return await asyncio.get_running_loop().run_in_executor(_THREADS, work)

    return await shielded(done())


def in_loop(tell: Callable[[str], None]) -> Callable[[str], None]:
    """Let work that is done apart tell something where all else is told."""
    loop = asyncio.get_running_loop()

    def told(text: str) -> None:
        loop.call_soon_threadsafe(tell, text)

    return told


@asynccontextmanager
async def left_apart(manager: AbstractContextManager[T]) -> AsyncIterator[T]:
    """Enter `manager`, and leave it in a thread: what it clears up may take long. It hears of no exception."""
    stack = ExitStack()
    value = stack.enter_context(manager)
    try:
        yield value
    finally:
        await apart(stack.close)
