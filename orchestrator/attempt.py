"""One attempt of a Run in one Sandbox, from hand-over to verdict."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from orchestrator.backends.naming import sandbox_name
from orchestrator.broker.assignment import Past
from orchestrator.broker.session import Session
from orchestrator.collect import Collected, Collector, Origin, Sequence, collecting
from orchestrator.errors import WireError
from orchestrator.keys import session_key
from orchestrator.launching import Opened, Place, exit_of
from orchestrator.outcome import Again, Broken, conclude, conclude_late, is_committed
from orchestrator.plan import Job, Plan
from orchestrator.pool import Pool
from orchestrator.prewarm import SETTLED_SECONDS, while_generating
from orchestrator.sandbox import Exit
from orchestrator.spool import Spool
from orchestrator.telling import terminal_event
from orchestrator.wire.any_event import AnyEvent
from orchestrator.wire.checkpoint import Checkpoint, RunError
from orchestrator.wire.event import StreamingEvent, TerminalEvent
from orchestrator.wire.identity import identify
from orchestrator.wire.platform_event import DockerContainerStatus
from orchestrator.wire.run import Run
from orchestrator.wire.state_event import StartGeneration


@dataclass(frozen=True, slots=True)
class Ended:
    """What came of an attempt: a committed checkpoint, or a verdict; with it the checkpoint and model calls so far."""

    verdict: Checkpoint | Again | Broken
    acknowledged: Checkpoint | None
    generations: int


@dataclass(frozen=True, slots=True)
class Attempts:
    """Works attempts of Runs in Sandboxes of a pool; their removal goes on in the background.

    `key` is the job's, from which its secrets derive.
    """

    place: Place
    pool: Pool
    key: bytes

    async def begin(self, planned: Plan, past: Past, fan_out: int) -> Ended:
        """Work an attempt in a Sandbox of its own. `fan_out` is the most delegates that one reply of this job called.

        Raises:
            BackendError: there was no Sandbox to be had.
        """
        async with self.pool.sandbox() as opened:
            # First it is written down which Sandbox has the Run: should we be killed, it is found by that.
            await self.place.records.keep_setting(planned.setting, opened.ordinal)
            key = self._session_key(planned.run, opened.ordinal)
            try:
                await opened.session.assign(planned.run, planned.authority, past, key)
            except WireError as error:
                # So long a conversation is this Run's trouble and nobody else's.
                broken = RunError(name="WireError", message=f"the Run cannot be handed over: {error}")
                return Ended(Broken(broken), None, 0)
            ended = await self._follow(planned, opened, fan_out)
        return await _settled(ended, opened)

    async def take_up(self, planned: Plan, past: Past, ordinal: int, fan_out: int) -> Ended:
        """Go on with an attempt that an orchestrator which is gone had begun in the Sandbox number `ordinal`.

        Raises:
            BackendError: its socket cannot be made again.
        """
        run = planned.run
        told = self.place.records.last_seq(run.run_id, run.attempt)

        def expect(session: Session, spool: Spool) -> None:
            key = self._session_key(run, ordinal)
            session.expect(run, planned.authority, past, key, lambda: not told and spool.is_empty)

        async with self.pool.found(ordinal, expect) as opened:
            ended = await self._follow(planned, opened, fan_out, told)
        return await _settled(ended, opened)

    def _session_key(self, run: Run, ordinal: int) -> str:
        job = self.place.job
        return session_key(self.key, sandbox_name(job.id, ordinal, job.instance), run.run_id, run.attempt)

    async def _follow(self, planned: Plan, opened: Opened, fan_out: int, after: int = 0) -> Ended:
        """Publish the events that follow number `after`, until there is a verdict."""
        place, run = self.place, planned.run
        if place.job.verbose:
            await place.publish(Collected.made_here(_container_status(run, opened.sandbox.name, place.clock())))
        sequence = Sequence(Origin(run.job_id, run.run_id, run.attempt), place.note, after + 1)
        verdict = await self._collect(planned, opened, sequence, fan_out)
        opened.session.revoke()
        return Ended(verdict, opened.session.checkpoint, opened.session.generations)

    async def _collect(
        self, planned: Plan, opened: Opened, sequence: Sequence, fan_out: int
    ) -> Checkpoint | Again | Broken:
        job, sandbox = self.place.job, opened.sandbox
        async with collecting(sandbox.lines(), partial(exit_of, sandbox), opened.spool, sequence) as collector:
            with _foreseeing(self.pool, job, planned.run, fan_out) as foresight, _limited(collector, job.run_seconds):
                async for collected in collector:
                    foresight.see(collected.event)
                    verdict = await self._publish(opened, collected)
                    if verdict is not None:
                        return verdict
        return await self._conclude(planned, opened, collector.gone)

    async def _publish(self, opened: Opened, collected: Collected) -> Checkpoint | Broken | None:
        event, acknowledged = collected.event, opened.session.checkpoint
        if not isinstance(event, TerminalEvent):
            await self.place.publish(collected)
            return None
        if acknowledged is None or not is_committed(event, acknowledged):
            return Broken(RunError(name="WireError", message="it ended without handing over its last checkpoint"))
        await self.place.publish(collected)
        return acknowledged

    async def _conclude(self, planned: Plan, opened: Opened, gone: Exit | None) -> Checkpoint | Again | Broken:
        """Decide where no terminal event came; without `gone` the Run took too long."""
        run, session = planned.run, opened.session
        # Its last checkpoint may still be on its way to the disk.
        session.revoke()
        await session.ended()
        if gone is None:
            verdict = conclude_late(self.place.job.run_seconds or 0, session.checkpoint)
        else:
            verdict = conclude(gone, session.violation or opened.spool.tampered, session.checkpoint)
        if isinstance(verdict, Checkpoint):
            await self.place.publish(Collected.made_here(terminal_event(run, verdict, self.place.clock())))
        return verdict


async def _settled(ended: Ended, opened: Opened) -> Ended:
    if isinstance(ended.verdict, Again):
        # Two Sandboxes must never work on one Run.
        await opened.gone.wait()
    return ended


def _container_status(run: Run, name: str, now: int) -> DockerContainerStatus:
    return DockerContainerStatus(
        id=identify(run.run_id, run.attempt, "container"),
        timestamp=now,
        job_id=run.job_id,
        run_id=run.run_id,
        attempt=run.attempt,
        status="running",
        service=name,
    )


@contextmanager
def _limited(collector: Collector, seconds: float | None) -> Iterator[None]:
    """Stop the events of a Run that takes longer than `seconds`."""
    timer = None if seconds is None else asyncio.get_running_loop().call_later(seconds, collector.stop)
    try:
        yield
    finally:
        if timer is not None:
            timer.cancel()


class _Foresight:
    """Has Sandboxes warmed once a model call has lasted so long that starting them disturbs nobody."""

    def __init__(self, pool: Pool, run_id: str, count: int) -> None:
        self._pool = pool
        self._run_id = run_id
        self._count = count
        self._timer: asyncio.TimerHandle | None = None
        self._wants = False

    def see(self, event: AnyEvent) -> None:
        """Tell the next event of the Run."""
        if isinstance(event, StreamingEvent):
            return  # The reply is on its way, and what it asks for is not known yet.
        self.cancel()
        if isinstance(event, StartGeneration) and self._count:
            self._timer = asyncio.get_running_loop().call_later(SETTLED_SECONDS, self._want)

    def cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._wants:
            self._wants = False
            self._pool.unwant(self._run_id)

    def _want(self) -> None:
        self._wants = True
        self._pool.want(self._run_id, self._count)


@contextmanager
def _foreseeing(pool: Pool, job: Job, run: Run, fan_out: int) -> Iterator[_Foresight]:
    """What is foreseen is the need of the Run's own Expert; of one that cannot delegate, its coordinator's next."""
    run_id, expert, by = run.run_id, run.expert, run.checkpoint.delegated_by
    if not expert.delegates and by is not None:
        run_id, expert = by.run_id, job.config.expert(by.expert.key)
    foresight = _Foresight(pool, run_id, while_generating(expert, fan_out, job.prewarm))
    try:
        yield foresight
    finally:
        foresight.cancel()
