"""Sandboxes of a job, some of them warm: started before it is known which Run they will get.

A Sandbox does not know its Run until the broker assigns it, so those of one job are interchangeable. Starting one takes
as long as all other parts of a hop together; during a model call, that time costs nothing.
"""

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field

from orchestrator.broker.session import Session
from orchestrator.errors import SandboxLostError
from orchestrator.events.spool import Spool
from orchestrator.log import get_logger
from orchestrator.plan.job import MAX_ATTEMPTS
from orchestrator.pool.launch import LaunchContext, LiveSandbox, SocketRefusedError, exit_of, launch, reattach
from orchestrator.pool.prewarm import UNUSED_SECONDS, WarmLimit
from orchestrator.sandbox.api import Sandbox
from orchestrator.sandbox.naming import sandbox_name

_log = get_logger(__name__)
_EXIT_SECONDS = 10

_Opening = Callable[[asyncio.Event], AbstractAsyncContextManager[LiveSandbox]]


@dataclass(eq=False, slots=True)
class _Slot:
    """One Sandbox of the pool, from its launch to its removal; `is_warm` if it counts towards the warm limit.

    `launched` is when it was launched; `unused_since` when it came up, or was last reserved: by the event loop's clock.
    """

    ordinal: int
    opened: "asyncio.Future[LiveSandbox]"
    launched: float
    unused_since: float = math.inf
    is_warm: bool = False
    worked: bool = False
    released: asyncio.Event = field(default_factory=asyncio.Event)
    gone: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(slots=True)
class _Reservation:
    count: int
    callers: int = 0


class Pool:
    """Launches Sandboxes, gives each to one Run, and removes it afterwards. `tasks` must outlive every use.

    Once the first runs, `at_start` more are launched one after another: in parallel they would delay the first by a
    third, but the engine's work for one overlaps well with the imports of the one before. Unused ones count in
    `warm_limit`.
    """

    def __init__(
        self,
        context: LaunchContext,
        tasks: asyncio.TaskGroup,
        ordinals: Iterator[int],
        at_start: int,
        warm_limit: WarmLimit,
    ) -> None:
        self._context = context
        self._tasks = tasks
        self._ordinals = ordinals
        self._at_start = at_start
        self._warm_limit = warm_limit
        self._idle: list[_Slot] = []
        self._reservations: dict[str, _Reservation] = {}
        self._shrink_timer: asyncio.TimerHandle | None = None
        self._closed = False

    def begin(self) -> None:
        """Launch the first: one is needed in any case."""
        self._idle.append(self._launch())

    def reserve(self, run_id: str, count: int) -> None:
        """Keep `count` Sandboxes unused for a Run's coming needs, in addition to those for other Runs.

        They stay until `unreserve`. Several callers may reserve the same for one Run.
        """
        reservation = self._reservations.setdefault(run_id, _Reservation(count))
        reservation.count, reservation.callers = count, reservation.callers + 1
        self._at_start = 0  # From here on the Runs themselves state their needs.
        while len(self._idle) < self._reserved_total and self._warm():
            pass

    def unreserve(self, run_id: str) -> None:
        """Withdraw one `reserve`; Sandboxes that stay unused for a while are removed."""
        reserved = self._idle[: self._reserved_total]
        self._reservations[run_id].callers -= 1
        if not self._reservations[run_id].callers:
            del self._reservations[run_id]
        for slot in reserved:
            self._mark_unused(slot)

    @property
    def _reserved_total(self) -> int:
        return sum(each.count for each in self._reservations.values())

    def close(self) -> None:
        """Remove unused Sandboxes; launch no more."""
        self._closed = True
        self._reservations.clear()
        if self._shrink_timer is not None:
            self._shrink_timer.cancel()
        for slot in tuple(self._idle):
            self._take_idle(slot).released.set()

    @asynccontextmanager
    async def sandbox(self) -> AsyncIterator[LiveSandbox]:
        """Take a Sandbox for one Run, a warm one if available. It is removed in the background afterwards.

        Raises:
            BackendError: none could be started.
        """
        async with self._use(await self._opened()) as opened:
            yield opened

    @asynccontextmanager
    async def reattach(self, ordinal: int, expect: Callable[[Session, Spool], None]) -> AsyncIterator[LiveSandbox]:
        """Reattach to the Sandbox of this number, which got its Run from an orchestrator that is gone.

        Raises:
            BackendError: its socket cannot be created again.
        """
        slot = self._open(ordinal, lambda gone: reattach(self._context, ordinal, gone, expect))
        async with self._use(slot) as opened:
            yield opened

    @asynccontextmanager
    async def _use(self, slot: _Slot) -> AsyncIterator[LiveSandbox]:
        slot.worked = True
        try:
            yield await asyncio.shield(slot.opened)
        finally:
            slot.released.set()

    def _take_idle(self, slot: _Slot) -> _Slot:
        self._idle.remove(slot)
        if slot.is_warm:
            self._warm_limit.give_back()
        return slot

    def _mark_unused(self, slot: _Slot) -> None:
        """Start counting how long a Sandbox is unused; the first one, which is not warm, waits for its Run."""
        if slot.is_warm and slot.opened.done() and slot in self._idle:
            slot.unused_since = asyncio.get_running_loop().time()
            if self._shrink_timer is None:
                self._shrink_at(slot.unused_since + UNUSED_SECONDS)

    def _shrink_at(self, when: float) -> None:
        self._shrink_timer = asyncio.get_running_loop().call_at(when, self._shrink)

    def _shrink(self) -> None:
        self._shrink_timer = None
        overdue = asyncio.get_running_loop().time() - UNUSED_SECONDS
        for slot in self._idle[self._reserved_total :]:
            if slot.unused_since <= overdue:
                self._take_idle(slot).released.set()
        left = min((slot.unused_since for slot in self._idle[self._reserved_total :]), default=math.inf)
        if left < math.inf:
            self._shrink_at(left + UNUSED_SECONDS)

    def _warm(self) -> bool:
        if self._closed or not self._warm_limit.take():
            return False
        slot = self._launch()
        slot.is_warm = True
        self._idle.append(slot)
        return True

    def _warm_at_start(self) -> None:
        if self._at_start and self._warm():
            self._at_start -= 1

    async def _opened(self) -> _Slot:
        """Return a slot with a running Sandbox; replace one that was lost during its start, as for a new attempt.

        Sandboxes that were launched before the first refusal of a socket are refused too. They do not count as lost.
        """
        left = MAX_ATTEMPTS
        while True:
            slot = self._take_warm() or self._launch()
            slot.worked = True
            try:
                await asyncio.shield(slot.opened)
            except SandboxLostError as error:
                left -= not isinstance(error, SocketRefusedError)
                if not left:
                    raise
                _log.debug("%s; starting another", error)
            except BaseException:
                slot.released.set()
                raise
            else:
                return slot

    def _take_warm(self) -> _Slot | None:
        """Take a warm Sandbox whose deadline leaves its Run its full time; release those that are too old."""
        earliest = asyncio.get_running_loop().time() - self._context.job.wait_seconds
        while self._idle:
            slot = self._take_idle(self._idle[0])
            if slot.launched >= earliest:
                return slot
            slot.released.set()
        return None

    def _launch(self) -> _Slot:
        ordinal = next(self._ordinals)
        return self._open(ordinal, lambda gone: launch(self._context, ordinal, gone, self._warm_at_start))

    def _open(self, ordinal: int, opening: _Opening) -> _Slot:
        loop = asyncio.get_running_loop()
        slot = _Slot(ordinal, loop.create_future(), loop.time())
        self._tasks.create_task(self._hold(slot, opening))
        return slot

    async def _hold(self, slot: _Slot, opening: _Opening) -> None:
        try:
            async with opening(slot.gone) as opened:
                slot.opened.set_result(opened)
                self._mark_unused(slot)
                await self._until_released(slot, opened.sandbox)
                opened.session.revoke()
                if slot.worked:
                    await self._wait_for_exit(opened)
        except Exception as error:  # noqa: BLE001 - any error is raised to the caller that takes the Sandbox
            self._fail(slot, error)
        finally:
            if slot in self._idle:
                self._take_idle(slot)
            slot.opened.cancel()
            slot.gone.set()

    async def _until_released(self, slot: _Slot, sandbox: Sandbox) -> None:
        async with asyncio.TaskGroup() as group:
            released = group.create_task(slot.released.wait())
            ended = group.create_task(exit_of(sandbox))
            await asyncio.wait((released, ended), return_when=asyncio.FIRST_COMPLETED)
            if slot in self._idle:
                self._take_idle(slot)
                _log.debug("a warm Sandbox, %s, ended on its own: %s", sandbox.name, ended.result())
            elif slot.worked:
                await slot.released.wait()
            released.cancel()
            ended.cancel()

    async def _wait_for_exit(self, opened: LiveSandbox) -> None:
        """Let a Sandbox that has done its Run end on its own, which it does at once unless it is broken."""
        last = opened.session.checkpoint
        if last is None or not last.is_stopped:
            return
        try:
            async with asyncio.timeout(_EXIT_SECONDS):
                ended = await exit_of(opened.sandbox)
        except TimeoutError:
            return
        if ended.code:
            # The Run's result stands, as in its last event (docs/reference/reliability.md#verdicts).
            _log.debug(
                "Sandbox %s completed its Run and then failed (%s, exit code %s): %s",
                opened.sandbox.name,
                ended.reason,
                ended.code,
                ended.last_line or "it gave no reason",
            )

    def _fail(self, slot: _Slot, error: Exception) -> None:
        if slot.opened.done():
            name = sandbox_name(self._context.job.id, slot.ordinal, self._context.job.instance)
            _log.debug("while removing Sandbox %s: %s", name, error)
            return
        slot.opened.set_exception(error)
        if not slot.worked:
            # No caller awaits it: the next one that needs a Sandbox launches another and gets that one's error.
            slot.opened.exception()
