"""One attempt of a Run in one Sandbox, from hand-over to verdict."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from orchestrator.collect import Collected, Origin, Sequence, collect, drain
from orchestrator.outcome import Again, Broken, conclude, is_committed
from orchestrator.plan import Plan
from orchestrator.pool import Opened, Place, Pool, exit_of
from orchestrator.prewarm import SETTLED_SECONDS, while_generating
from orchestrator.wire.checkpoint import Checkpoint, RunError
from orchestrator.wire.event import TerminalEvent
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


async def attempt(place: Place, pool: Pool, planned: Plan, fan_out: int) -> Ended:
    """Run `planned` in a Sandbox of the pool; its removal goes on in the background, unless the Run begins again.

    `fan_out` is the most delegates that one reply of this job has called.

    Raises:
        BackendError: there was no Sandbox to be had.
    """
    async with pool.sandbox() as opened:
        session = opened.session
        if place.job.verbose:
            await place.publish(Collected.made_here(_container_status(planned.run, opened.sandbox.name, place.clock())))
        await session.assign(planned.run, planned.authority)
        verdict = await _follow(place, pool, planned, opened, fan_out)
        session.revoke()
    if isinstance(verdict, Again):
        # Two Sandboxes must never work on one Run.
        await opened.gone.wait()
    return Ended(verdict, session.checkpoint, session.generations)


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


async def _follow(place: Place, pool: Pool, planned: Plan, opened: Opened, fan_out: int) -> Checkpoint | Again | Broken:
    run = planned.run
    sequence = Sequence(Origin(run.job_id, run.run_id, run.attempt), place.note)
    with _refilling(pool, while_generating(run.expert, fan_out, place.job.prewarm)) as generates:
        late = _Late(place.job.run_seconds)
        async for collected in late.cut(collect(opened.sandbox.lines(), opened.spool, sequence)):
            generates(isinstance(collected.event, StartGeneration))
            verdict = await _publish(place, opened, collected)
            if verdict is not None:
                return verdict
    gone = None if late.reached else await exit_of(opened.sandbox)
    for collected in drain(opened.spool, sequence):
        verdict = await _publish(place, opened, collected)
        if verdict is not None:
            return verdict
    if gone is None:
        return Broken(RunError(name="Deadline", message=f"the Run reached its limit of {place.job.run_seconds:g} s"))
    return conclude(gone, run.attempt, opened.session.violation or opened.spool.tampered)


async def _publish(place: Place, opened: Opened, collected: Collected) -> Checkpoint | Broken | None:
    event = collected.event
    if isinstance(event, TerminalEvent):
        acknowledged = opened.session.checkpoint
        if acknowledged is None or not is_committed(event, acknowledged):
            message = "it ended without handing over its last checkpoint"
            return Broken(RunError(name="WireError", message=message))
        await place.publish(collected)
        return acknowledged
    await place.publish(collected)
    return None


class _Late:
    """Stops the events of a Run that takes longer than `seconds`."""

    def __init__(self, seconds: float | None) -> None:
        self.reached = False
        self._deadline = None if seconds is None else asyncio.get_running_loop().time() + seconds

    async def cut(self, events: AsyncIterator[Collected]) -> AsyncIterator[Collected]:
        """Give events until the limit; only waiting for the next is ever cut off, so none is lost half published."""
        try:
            while True:
                async with asyncio.timeout_at(self._deadline) as limit:
                    collected = await anext(events)
                yield collected
        except StopAsyncIteration:
            return
        except TimeoutError:
            if not limit.expired():
                raise
            self.reached = True


class _Refill:
    """Has Sandboxes warmed once a model call has lasted so long that starting them disturbs nobody."""

    def __init__(self, pool: Pool, count: int) -> None:
        self._pool = pool
        self._count = count
        self._timer: asyncio.TimerHandle | None = None

    def __call__(self, generating: bool) -> None:  # noqa: FBT001 - what the event just seen says
        self.cancel()
        if generating and self._count:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(SETTLED_SECONDS, self._pool.prepare, self._count)

    def cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()


@contextmanager
def _refilling(pool: Pool, count: int) -> Iterator[_Refill]:
    refill = _Refill(pool, count)
    try:
        yield refill
    finally:
        refill.cancel()
