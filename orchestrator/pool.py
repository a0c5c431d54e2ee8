"""Sandboxes of a job, some of them warm: started before it is known which Run they will get.

A Sandbox does not know its Run until the broker assigns it, so those of one job are interchangeable. Starting one takes
as long as everything else in a hop together; while a model call is in flight, nobody waits for it.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.backends.naming import sandbox_name
from orchestrator.broker.server import Broker
from orchestrator.broker.session import Session
from orchestrator.collect import Collected, Spool
from orchestrator.errors import BackendUnavailableError, SandboxLostError
from orchestrator.plan import Job, sandbox_spec
from orchestrator.sandbox import Backend, Exit, Reason, Sandbox
from orchestrator.state import state_directory

READY_SECONDS = 60
"""How long a Sandbox may take from its launch to its broker."""

_EXIT_SECONDS = 10
_REMEDY = (
    "the engine must run on this machine and share its file system and unix sockets, "
    "which remote engines and most desktop products do not"
)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a job's Sandboxes come to life. `publish` stores an event and shows it, `note` takes remarks for a log."""

    job: Job
    backend: Backend
    broker: Broker
    directory: Path
    publish: Callable[[Collected], Awaitable[None]]
    note: Callable[[str], None]
    clock: Callable[[], int]


@dataclass(frozen=True, slots=True)
class Opened:
    """A Sandbox that has reached its broker."""

    sandbox: Sandbox
    session: Session
    spool: Spool
    gone: asyncio.Event


@dataclass(eq=False, slots=True)
class _Slot:
    """One Sandbox of the pool, from its launch to its removal."""

    ordinal: int
    opened: "asyncio.Future[Opened]"
    worked: bool = False
    released: asyncio.Event = field(default_factory=asyncio.Event)
    gone: asyncio.Event = field(default_factory=asyncio.Event)


class Pool:
    """Launches Sandboxes, hands each to one Run, and removes it afterwards. `tasks` must outlive every use.

    Once the first is up, `spare` more are launched: beside it they would delay it by a third.
    """

    def __init__(self, place: Place, tasks: asyncio.TaskGroup, ordinals: Iterator[int], spare: int) -> None:
        self._place = place
        self._tasks = tasks
        self._ordinals = ordinals
        self._spare = spare
        self._idle: list[_Slot] = []
        self._closed = False

    def prepare(self, count: int) -> None:
        """Have at least `count` Sandboxes up, or coming up, that nobody uses yet."""
        while len(self._idle) < count and not self._closed:
            self._idle.append(self._launch())

    def close(self) -> None:
        """Remove what nobody uses; nothing is launched any more."""
        self._closed = True
        while self._idle:
            self._idle.pop().released.set()

    @asynccontextmanager
    async def sandbox(self) -> AsyncIterator[Opened]:
        """Take a Sandbox for one Run: a warm one where there is one. It is removed in the background afterwards.

        Raises:
            BackendError: none could be started.
        """
        slot = self._idle.pop(0) if self._idle else self._launch()
        slot.worked = True
        try:
            yield await asyncio.shield(slot.opened)
        finally:
            slot.released.set()

    def _launch(self) -> _Slot:
        slot = _Slot(next(self._ordinals), asyncio.get_running_loop().create_future())
        self._tasks.create_task(self._hold(slot))
        return slot

    async def _hold(self, slot: _Slot) -> None:
        place, user = self._place, self._place.job.workspace.user
        try:
            with state_directory(place.directory, str(slot.ordinal), user, place.job.events) as (state, spool):
                spec = sandbox_spec(place.job, slot.ordinal, state, place.clock() // 1000)
                async with place.broker.listen(state, user) as session, place.backend.launch(spec) as sandbox:
                    await ready(spec.name, session, sandbox)
                    slot.opened.set_result(Opened(sandbox, session, spool, slot.gone))
                    spare, self._spare = self._spare, 0
                    self.prepare(spare)
                    await self._until_released(slot, sandbox)
                    session.revoke()
                    if slot.worked:
                        await _leave(sandbox)
        except Exception as error:  # noqa: BLE001 - whoever takes the Sandbox gets it, whatever it is
            self._fail(slot, error)
        finally:
            slot.opened.cancel()
            slot.gone.set()

    async def _until_released(self, slot: _Slot, sandbox: Sandbox) -> None:
        async with asyncio.TaskGroup() as group:
            released = group.create_task(slot.released.wait())
            ended = group.create_task(exit_of(sandbox))
            await asyncio.wait((released, ended), return_when=asyncio.FIRST_COMPLETED)
            if slot in self._idle:
                self._idle.remove(slot)
                self._place.note(f"a warm Sandbox, {sandbox.name}, ended by itself: {ended.result()}")
            elif slot.worked:
                await slot.released.wait()
            released.cancel()
            ended.cancel()

    def _fail(self, slot: _Slot, error: Exception) -> None:
        if slot.opened.done():
            name = sandbox_name(self._place.job.id, slot.ordinal)
            self._place.note(f"while removing Sandbox {name}: {error}")
            return
        slot.opened.set_exception(error)
        if slot in self._idle:
            # Nobody waits for it; whoever needs a Sandbox launches another, and hears of what is wrong then.
            self._idle.remove(slot)
            slot.opened.exception()


async def exit_of(sandbox: Sandbox) -> Exit:
    """Wait for a Sandbox's end; one that went away is lost."""
    try:
        return await sandbox.wait()
    except SandboxLostError as error:
        return Exit(None, Reason.LOST, str(error))


async def ready(name: str, session: Session, sandbox: Sandbox) -> None:
    """Wait until a Sandbox has reached its broker.

    Raises:
        BackendUnavailableError: it has not; says what may be wrong.
    """
    try:
        async with asyncio.timeout(READY_SECONDS), asyncio.TaskGroup() as group:
            attached = group.create_task(session.ready())
            gone = group.create_task(exit_of(sandbox))
            await asyncio.wait((attached, gone), return_when=asyncio.FIRST_COMPLETED)
            attached.cancel()
            gone.cancel()
    except TimeoutError as error:
        message = f"Sandbox {name} did not reach its broker within {READY_SECONDS} s; {_REMEDY}"
        raise BackendUnavailableError(message) from error
    if gone.done() and not gone.cancelled():
        last = gone.result().detail.strip().splitlines()
        said = f": {last[-1]}" if last else ""
        message = f"Sandbox {name} ended before it reached its broker (exit code {gone.result().code}{said}); {_REMEDY}"
        raise BackendUnavailableError(message)


async def _leave(sandbox: Sandbox) -> None:
    """Let a Sandbox whose Run is over end by itself, which it does at once unless it is broken."""
    try:
        async with asyncio.timeout(_EXIT_SECONDS):
            await exit_of(sandbox)
    except TimeoutError:
        return
