"""Sandboxes of a job, some of them warm: started before it is known which Run they will get.

A Sandbox does not know its Run until the broker assigns it, so those of one job are interchangeable. Starting one takes
as long as everything else in a hop together; while a model call is in flight, nobody waits for it.
"""

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field

from orchestrator.backends.naming import sandbox_name
from orchestrator.broker.session import Session
from orchestrator.errors import SandboxLostError
from orchestrator.launching import Opened, Place, exit_of, found, launched
from orchestrator.outcome import MAX_ATTEMPTS
from orchestrator.prewarm import UNUSED_SECONDS, Budget
from orchestrator.sandbox import Sandbox
from orchestrator.spool import Spool

_EXIT_SECONDS = 10

_Opening = Callable[[asyncio.Event], AbstractAsyncContextManager[Opened]]


@dataclass(eq=False, slots=True)
class _Slot:
    """One Sandbox of the pool, from its launch to its removal; `spare` if it is within the budget.

    `launched` is when it was; `unused_since` when it came up, or was last wanted: by the event loop's clock.
    """

    ordinal: int
    opened: "asyncio.Future[Opened]"
    launched: float
    unused_since: float = math.inf
    spare: bool = False
    worked: bool = False
    released: asyncio.Event = field(default_factory=asyncio.Event)
    gone: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(slots=True)
class _Want:
    count: int
    asked: int = 0


class Pool:
    """Launches Sandboxes, hands each to one Run, and removes it afterwards. `tasks` must outlive every use.

    Once the first runs, `spare` more are launched one after another: beside it they would delay it by a third, but what
    the engine does for the next goes well beside the imports of the last. What nobody uses yet is within `budget`.
    """

    def __init__(
        self, place: Place, tasks: asyncio.TaskGroup, ordinals: Iterator[int], spare: int, budget: Budget
    ) -> None:
        self._place = place
        self._tasks = tasks
        self._ordinals = ordinals
        self._spare = spare
        self._budget = budget
        self._idle: list[_Slot] = []
        self._wanted: dict[str, _Want] = {}
        self._surplus: asyncio.TimerHandle | None = None
        self._closed = False

    def begin(self) -> None:
        """Launch the first: it is known that it is needed, though not yet what for."""
        self._idle.append(self._launch())

    def want(self, run_id: str, count: int) -> None:
        """Have `count` Sandboxes unused for what a Run may come to need, beside what others may, until `unwant`.

        Several may want the same for one Run.
        """
        want = self._wanted.setdefault(run_id, _Want(count))
        want.count, want.asked = count, want.asked + 1
        self._spare = 0  # From here on it is known what may be needed.
        while len(self._idle) < self._wanted_in_all and self._warm():
            pass

    def unwant(self, run_id: str) -> None:
        """Take back one `want`; what nobody uses for a while is removed."""
        wanted = self._idle[: self._wanted_in_all]
        self._wanted[run_id].asked -= 1
        if not self._wanted[run_id].asked:
            del self._wanted[run_id]
        for slot in wanted:
            self._unused(slot)

    @property
    def _wanted_in_all(self) -> int:
        return sum(want.count for want in self._wanted.values())

    def close(self) -> None:
        """Remove what nobody uses; nothing is launched any more."""
        self._closed = True
        self._wanted.clear()
        if self._surplus is not None:
            self._surplus.cancel()
        for slot in tuple(self._idle):
            self._taken(slot).released.set()

    @asynccontextmanager
    async def sandbox(self) -> AsyncIterator[Opened]:
        """Take a Sandbox for one Run: a warm one where there is one. It is removed in the background afterwards.

        Raises:
            BackendError: none could be started.
        """
        async with self._used(await self._opened()) as opened:
            yield opened

    @asynccontextmanager
    async def found(self, ordinal: int, expect: Callable[[Session, Spool], None]) -> AsyncIterator[Opened]:
        """Take up the Sandbox of this number, to which an orchestrator that is gone had given a Run.

        Raises:
            BackendError: its socket cannot be made again.
        """
        slot = self._open(ordinal, lambda gone: found(self._place, ordinal, gone, expect))
        async with self._used(slot) as opened:
            yield opened

    @asynccontextmanager
    async def _used(self, slot: _Slot) -> AsyncIterator[Opened]:
        slot.worked = True
        try:
            yield await asyncio.shield(slot.opened)
        finally:
            slot.released.set()

    def _taken(self, slot: _Slot) -> _Slot:
        self._idle.remove(slot)
        if slot.spare:
            self._budget.give_back()
        return slot

    def _unused(self, slot: _Slot) -> None:
        """Begin to count how long one goes unused; the first, which is none to spare, waits for its Run."""
        if slot.spare and slot.opened.done() and slot in self._idle:
            slot.unused_since = asyncio.get_running_loop().time()
            if self._surplus is None:
                self._shrink_at(slot.unused_since + UNUSED_SECONDS)

    def _shrink_at(self, when: float) -> None:
        self._surplus = asyncio.get_running_loop().call_at(when, self._shrink)

    def _shrink(self) -> None:
        self._surplus = None
        overdue = asyncio.get_running_loop().time() - UNUSED_SECONDS
        for slot in self._idle[self._wanted_in_all :]:
            if slot.unused_since <= overdue:
                self._taken(slot).released.set()
        left = min((slot.unused_since for slot in self._idle[self._wanted_in_all :]), default=math.inf)
        if left < math.inf:
            self._shrink_at(left + UNUSED_SECONDS)

    def _warm(self) -> bool:
        if self._closed or not self._budget.take():
            return False
        slot = self._launch()
        slot.spare = True
        self._idle.append(slot)
        return True

    def _warm_spare(self) -> None:
        if self._spare and self._warm():
            self._spare -= 1

    async def _opened(self) -> _Slot:
        """Give a slot whose Sandbox is up; one that was lost before it was is replaced, as a Run would begin anew."""
        for left in reversed(range(MAX_ATTEMPTS)):
            slot = self._young() or self._launch()
            slot.worked = True
            try:
                await asyncio.shield(slot.opened)
            except SandboxLostError as error:
                if not left:
                    raise
                self._place.note(f"{error}; another is started")
            except BaseException:
                slot.released.set()
                raise
            else:
                return slot
        raise AssertionError

    def _young(self) -> _Slot | None:
        """Take a warm one whose deadline leaves its Run all the time that it may take; those too old for that go."""
        earliest = asyncio.get_running_loop().time() - self._place.job.wait_seconds
        while self._idle:
            slot = self._taken(self._idle[0])
            if slot.launched >= earliest:
                return slot
            slot.released.set()
        return None

    def _launch(self) -> _Slot:
        ordinal = next(self._ordinals)
        return self._open(ordinal, lambda gone: launched(self._place, ordinal, gone, self._warm_spare))

    def _open(self, ordinal: int, opening: _Opening) -> _Slot:
        loop = asyncio.get_running_loop()
        slot = _Slot(ordinal, loop.create_future(), loop.time())
        self._tasks.create_task(self._hold(slot, opening))
        return slot

    async def _hold(self, slot: _Slot, opening: _Opening) -> None:
        try:
            async with opening(slot.gone) as opened:
                slot.opened.set_result(opened)
                self._unused(slot)
                await self._until_released(slot, opened.sandbox)
                opened.session.revoke()
                if slot.worked:
                    await self._leave(opened)
        except Exception as error:  # noqa: BLE001 - whoever takes the Sandbox gets it, whatever it is
            self._fail(slot, error)
        finally:
            if slot in self._idle:
                self._taken(slot)
            slot.opened.cancel()
            slot.gone.set()

    async def _until_released(self, slot: _Slot, sandbox: Sandbox) -> None:
        async with asyncio.TaskGroup() as group:
            released = group.create_task(slot.released.wait())
            ended = group.create_task(exit_of(sandbox))
            await asyncio.wait((released, ended), return_when=asyncio.FIRST_COMPLETED)
            if slot in self._idle:
                self._taken(slot)
                self._place.note(f"a warm Sandbox, {sandbox.name}, ended by itself: {ended.result()}")
            elif slot.worked:
                await slot.released.wait()
            released.cancel()
            ended.cancel()

    async def _leave(self, opened: Opened) -> None:
        """Let a Sandbox that has done its Run end by itself, which it does at once unless it is broken."""
        last = opened.session.checkpoint
        if last is None or not last.is_stopped:
            return
        try:
            async with asyncio.timeout(_EXIT_SECONDS):
                ended = await exit_of(opened.sandbox)
        except TimeoutError:
            return
        if ended.code:
            # The Run is as its last event says all the same (reliability 3.4).
            how = f"({ended.reason}, exit code {ended.code}): {ended.last_words or 'it gave no reason'}"
            self._place.note(f"Sandbox {opened.sandbox.name} had done its Run and then failed {how}")

    def _fail(self, slot: _Slot, error: Exception) -> None:
        if slot.opened.done():
            name = sandbox_name(self._place.job.id, slot.ordinal, self._place.job.instance)
            self._place.note(f"while removing Sandbox {name}: {error}")
            return
        slot.opened.set_exception(error)
        if not slot.worked:
            # Nobody waits for it; whoever needs a Sandbox launches another, and hears of what is wrong then.
            slot.opened.exception()
