"""Work that must not be interrupted halfway."""

import asyncio
import heapq
import itertools
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, asynccontextmanager, suppress
from contextvars import copy_context
from threading import Thread
from typing import Any, Protocol, TypeVar

from orchestrator.errors import BackendError

T = TypeVar("T")

# A separate pool: slow work in the loop's own pool would delay writes to the disk.
_THREADS = ThreadPoolExecutor(32, "blocking")


async def shielded(work: Coroutine[Any, Any, T]) -> T:
    """Do `work` to its end even if the caller is cancelled; the cancellation is raised afterwards.

    Unlike `asyncio.shield` it never leaves the work running behind. The work must have its own time limit.
    """
    # A TaskGroup would pass the cancellation on to the work; here this call always awaits the task.
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


async def in_thread(work: Callable[[], T]) -> T:
    """Do blocking `work` in a thread to its end, as `shielded` does, without blocking the loop."""

    async def done() -> T:
        # As asyncio.to_thread does, so that log records in the thread name the job.
        return await asyncio.get_running_loop().run_in_executor(_THREADS, copy_context().run, work)

    return await shielded(done())


async def in_daemon_thread(work: Callable[[], T]) -> T:
    """Do blocking `work` in a separate thread; a caller that is cancelled leaves it behind.

    Such a thread does not keep the process from ending: for work that may hang and that has no time limit itself, such
    as a look-up of a name.
    """
    loop = asyncio.get_running_loop()
    result: asyncio.Future[T] = loop.create_future()

    def deliver(put: Callable[[Any], None], value: object) -> None:
        if not result.done():
            put(value)

    def do() -> None:
        put: Callable[[Any], None] = result.set_result
        value: object
        try:
            value = work()
        except Exception as error:  # noqa: BLE001 - the caller gets it
            put, value = result.set_exception, error
        with suppress(RuntimeError):  # The loop is closed: the caller is gone.
            loop.call_soon_threadsafe(deliver, put, value)

    Thread(target=do, daemon=True).start()
    return await result


@asynccontextmanager
async def exit_in_thread(manager: AbstractContextManager[T]) -> AsyncIterator[T]:
    """Enter `manager`, and leave it in a thread: its cleanup may take long. It receives no exception."""
    stack = ExitStack()
    value = stack.enter_context(manager)
    try:
        yield value
    finally:
        await in_thread(stack.close)


class Removable(Protocol):
    """An object that can be removed: a container, or a Job."""

    async def remove(self) -> None:
        """Remove it, if it exists.

        Raises:
            BackendError: it may still exist.
        """


@asynccontextmanager
async def cleanup_after(sandbox: Removable) -> AsyncIterator[None]:
    """Remove a Sandbox when the block is left; a cancellation does not interrupt the removal.

    Raises:
        BackendError: it may still exist; if the block raised, this is added to its error as a note instead.
    """
    try:
        yield
    except BaseException as error:
        await remove_because(error, sandbox)
        raise
    await shielded(sandbox.remove())


async def remove_because(error: BaseException, sandbox: Removable) -> None:
    """Remove a Sandbox because of an error; add a note to the error if that fails."""
    try:
        await shielded(sandbox.remove())
    except BackendError as left:
        error.add_note(str(left))


class PrioritySemaphore:
    """Admits at most `limit` callers at a time: urgent ones first, otherwise in the order of their calls."""

    def __init__(self, limit: int) -> None:
        self._free = limit
        self._waiting: list[tuple[bool, int, asyncio.Future[None]]] = []
        self._order = itertools.count()

    @asynccontextmanager
    async def slot(self, *, urgent: bool) -> AsyncIterator[None]:
        """Wait for a slot and hold it during the block."""
        if self._free:
            self._free -= 1
        else:
            await self._wait(urgent=urgent)
        try:
            yield
        finally:
            self._release()

    async def _wait(self, *, urgent: bool) -> None:
        admitted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (not urgent, next(self._order), admitted))
        try:
            await admitted
        except asyncio.CancelledError:
            if admitted.done() and not admitted.cancelled():
                self._release()
            raise

    def _release(self) -> None:
        while self._waiting:
            *_, other = heapq.heappop(self._waiting)
            if not other.done():
                other.set_result(None)
                return
        self._free += 1
