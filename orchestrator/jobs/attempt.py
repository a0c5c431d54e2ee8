"""One attempt of a Run in one Sandbox, from hand-over to verdict."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from msgspec.structs import asdict

from orchestrator.broker.assignment import PriorState
from orchestrator.broker.session import Session
from orchestrator.errors import WireError
from orchestrator.events.collector import Collector, EventSequencer, collect
from orchestrator.events.spool import Spool
from orchestrator.jobs.outcome import (
    FailedRun,
    RetryRun,
    conclude,
    conclude_timed_out,
    is_committed,
    synthetic_terminal_event,
)
from orchestrator.plan.job import Job
from orchestrator.plan.run_plan import Plan
from orchestrator.pool.launch import LaunchContext, LiveSandbox, exit_of
from orchestrator.pool.pool import Pool
from orchestrator.pool.prewarm import SETTLED_SECONDS, while_generating
from orchestrator.sandbox.api import Exit
from orchestrator.sandbox.keys import session_key
from orchestrator.sandbox.naming import sandbox_name
from orchestrator.wire.checkpoint import Checkpoint, RunError
from orchestrator.wire.event import AnyEvent, DockerContainerStatus, StartGeneration, StreamingEvent, TerminalEvent
from orchestrator.wire.identity import AttemptRef
from orchestrator.wire.line import EventLine
from orchestrator.wire.run import Run


@dataclass(frozen=True, slots=True)
class AttemptResult:
    """How an attempt ended: a committed checkpoint or a verdict; also the last checkpoint and model calls so far."""

    verdict: Checkpoint | RetryRun | FailedRun
    acknowledged: Checkpoint | None
    generations: int


@dataclass(frozen=True, slots=True)
class Attempts:
    """Runs attempts in Sandboxes of a pool; Sandboxes are removed in the background.

    `key` is the job's, from which its secrets derive.
    """

    context: LaunchContext
    pool: Pool
    key: bytes

    async def begin(self, planned: Plan, past: PriorState, fan_out: int) -> AttemptResult:
        """Run an attempt in its own Sandbox. `fan_out` is the most delegates that one reply of this job called.

        Raises:
            BackendError: no Sandbox could be started.
        """
        async with self.pool.sandbox() as opened:
            # First record which Sandbox has the Run: if we are killed, the next orchestrator finds it by that.
            await self.context.records.keep_setting(planned.setting, opened.ordinal)
            key = self._session_key(planned.run, opened.ordinal)
            try:
                await opened.session.assign(planned.run, planned.authority, past, key)
            except WireError as error:
                # A conversation too large for a frame ends this Run only.
                broken = RunError(name="WireError", message=f"the Run cannot be handed over: {error}")
                return AttemptResult(FailedRun(broken), None, 0)
            ended = await self._follow(planned, opened, fan_out)
        return await _after_removal(ended, opened)

    async def reattach(self, planned: Plan, past: PriorState, ordinal: int, fan_out: int) -> AttemptResult:
        """Continue an attempt that an orchestrator which is gone began in the Sandbox number `ordinal`.

        Raises:
            BackendError: its socket cannot be created again.
        """
        run = planned.run
        last_seq = self.context.records.last_seq(run.attempt_ref)

        def expect(session: Session, spool: Spool) -> None:
            key = self._session_key(run, ordinal)
            session.expect(run, planned.authority, past, key, lambda: not last_seq and spool.is_empty)

        async with self.pool.reattach(ordinal, expect) as opened:
            ended = await self._follow(planned, opened, fan_out, last_seq)
        return await _after_removal(ended, opened)

    def _session_key(self, run: Run, ordinal: int) -> str:
        job = self.context.job
        return session_key(self.key, sandbox_name(job.id, ordinal, job.instance), run.attempt_ref)

    async def _follow(self, planned: Plan, opened: LiveSandbox, fan_out: int, after: int = 0) -> AttemptResult:
        """Publish the events after number `after`, until a verdict."""
        context, run = self.context, planned.run
        if context.job.options.verbose:
            await context.publish(
                EventLine.from_event(_container_status(run.attempt_ref, opened.sandbox.name, context.clock()))
            )
        sequence = EventSequencer(run.attempt_ref, after + 1)
        verdict = await self._collect(planned, opened, sequence, fan_out)
        opened.session.revoke()
        return AttemptResult(verdict, opened.session.checkpoint, opened.session.generations)

    async def _collect(
        self, planned: Plan, opened: LiveSandbox, sequence: EventSequencer, fan_out: int
    ) -> Checkpoint | RetryRun | FailedRun:
        job, sandbox = self.context.job, opened.sandbox
        async with collect(sandbox.lines(), partial(exit_of, sandbox), opened.spool, sequence) as collector:
            with (
                _prewarm_trigger(self.pool, job, planned.run, fan_out) as trigger,
                _limit_time(collector, job.options.run_seconds),
            ):
                async for collected in collector:
                    trigger.see(collected.event)
                    verdict = await self._publish(opened, collected)
                    if verdict is not None:
                        return verdict
        return await self._conclude(planned, opened, collector.exit)

    async def _publish(self, opened: LiveSandbox, collected: EventLine) -> Checkpoint | FailedRun | None:
        event, acknowledged = collected.event, opened.session.checkpoint
        if not isinstance(event, TerminalEvent):
            await self.context.publish(collected)
            return None
        if acknowledged is None or not is_committed(event, acknowledged):
            return FailedRun(RunError(name="WireError", message="it ended without handing over its last checkpoint"))
        await self.context.publish(collected)
        return acknowledged

    async def _conclude(
        self, planned: Plan, opened: LiveSandbox, exit_: Exit | None
    ) -> Checkpoint | RetryRun | FailedRun:
        """Decide without a terminal event; without `exit_` the Run took too long."""
        run, session = planned.run, opened.session
        # Its last checkpoint may still be being written to the disk.
        session.revoke()
        await session.ended()
        if exit_ is None:
            verdict = conclude_timed_out(self.context.job.options.run_seconds or 0, session.checkpoint)
        else:
            verdict = conclude(exit_, session.violation or opened.spool.tampered, session.checkpoint)
        if isinstance(verdict, Checkpoint):
            await self.context.publish(
                EventLine.from_event(synthetic_terminal_event(run, verdict, self.context.clock()))
            )
        return verdict


async def _after_removal(ended: AttemptResult, opened: LiveSandbox) -> AttemptResult:
    if isinstance(ended.verdict, RetryRun):
        # Two Sandboxes must never work on one Run.
        await opened.gone.wait()
    return ended


def _container_status(attempt: AttemptRef, name: str, now: int) -> DockerContainerStatus:
    return DockerContainerStatus(
        **asdict(attempt),
        id=attempt.identify("container"),
        timestamp=now,
        status="running",
        service=name,
    )


@contextmanager
def _limit_time(collector: Collector, seconds: float | None) -> Iterator[None]:
    """Stop the events of a Run that takes longer than `seconds`."""
    timer = None if seconds is None else asyncio.get_running_loop().call_later(seconds, collector.stop)
    try:
        yield
    finally:
        if timer is not None:
            timer.cancel()


class _PrewarmTrigger:
    """Warms Sandboxes once a model call has lasted so long that starting them slows no hand-over."""

    def __init__(self, pool: Pool, run_id: str, count: int) -> None:
        self._pool = pool
        self._run_id = run_id
        self._count = count
        self._timer: asyncio.TimerHandle | None = None
        self._has_reserved = False

    def see(self, event: AnyEvent) -> None:
        """Take the next event of the Run."""
        if isinstance(event, StreamingEvent):
            return  # The reply is arriving; which tools it calls is not known yet.
        self.cancel()
        if isinstance(event, StartGeneration) and self._count:
            self._timer = asyncio.get_running_loop().call_later(SETTLED_SECONDS, self._reserve)

    def cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._has_reserved:
            self._has_reserved = False
            self._pool.unreserve(self._run_id)

    def _reserve(self) -> None:
        self._has_reserved = True
        self._pool.reserve(self._run_id, self._count)


@contextmanager
def _prewarm_trigger(pool: Pool, job: Job, run: Run, fan_out: int) -> Iterator[_PrewarmTrigger]:
    """Prewarm for the Run's own Expert; if it cannot delegate, for the next Run of the Expert that called it."""
    run_id, expert, by = run.run_id, run.expert, run.checkpoint.delegated_by
    if not expert.delegates and by is not None:
        run_id, expert = by.run_id, job.config.expert(by.expert.key)
    trigger = _PrewarmTrigger(pool, run_id, while_generating(expert, fan_out, job.prewarm))
    try:
        yield trigger
    finally:
        trigger.cancel()
