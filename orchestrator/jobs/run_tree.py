"""The tree of a job's Runs: an Expert's Runs one after another, its delegates in parallel."""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from orchestrator.broker.assignment import PriorState
from orchestrator.jobs.attempt import AttemptResult, Attempts
from orchestrator.jobs.delegation import MAX_RUNS, DelegateCall, Ending, children, continue_caller
from orchestrator.jobs.outcome import FailedRun, RetryRun, give_up, synthetic_terminal_event
from orchestrator.plan.job import MAX_ATTEMPTS
from orchestrator.plan.run_plan import Plan, plan
from orchestrator.pool.launch import LaunchContext
from orchestrator.pool.state_directories import ordinals
from orchestrator.wire.checkpoint import Checkpoint, RunError, Status
from orchestrator.wire.line import EventLine
from orchestrator.wire.run import Start


@dataclass(slots=True)
class RunTree:
    """Works Runs until none is left. At most as many Sandboxes work at once as `slots` allows.

    `granted` is called with the names of variables that a Run gets. `begun` are the Runs that the job has had, `widest`
    is the most delegates that one reply has called.
    """

    context: LaunchContext
    attempts: Attempts
    slots: asyncio.Semaphore
    granted: Callable[[Iterable[str]], None]
    begun: set[str]
    widest: int = 1

    async def run_expert(self, start: Start, depth: int = 0) -> Checkpoint:
        """Work an Expert from `start` to its end, through every delegation; return its last checkpoint.

        Raises:
            OrchestratorError: the platform failed; all parallel Runs are cancelled.
        """
        while True:
            worked = await self._run(start)
            if worked.checkpoint.status is not Status.STOPPED_BY_DELEGATE:
                return worked.checkpoint
            endings = await self._delegate(worked.checkpoint, depth)
            start = Start(
                checkpoint=continue_caller(worked.checkpoint, endings),
                generations=start.generations + worked.generations,
            )

    async def _delegate(self, parent: Checkpoint, depth: int) -> list[Ending]:
        self.widest = max(self.widest, len(parent.delegate_to or ()))
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(self._child(child, depth + 1))
                for child in children(parent, self.context.job.config.experts, depth)
            ]
        return [task.result() for task in tasks]

    async def _child(self, child: DelegateCall, depth: int) -> Ending:
        if child.start is None:
            return Ending(child.call, failure=child.refusal)
        if child.start.run_id not in self.begun and len(self.begun) >= MAX_RUNS:
            failure = f"the job has had {MAX_RUNS} Runs, which is its limit; do the work without delegating"
            return Ending(child.call, failure=failure)
        self.begun.add(child.start.run_id)
        return Ending(child.call, await self.run_expert(Start(checkpoint=child.start, query=child.call.query), depth))

    async def _run(self, start: Start) -> "_RunEnd":
        context, records = self.context, self.context.records
        planned = plan(context.job, start, self.attempts.key, context.clock())
        run_id = planned.run.run_id
        used, earlier = records.sandboxes(run_id), records.earlier(run_id)
        if earlier is not None and earlier.is_stopped and records.has_terminal_event(run_id, len(used)):
            return _RunEnd(earlier, records.calls_made(run_id))
        ended = await self._finish_last_attempt(planned, start, used)
        number = len(used)
        while ended is None or isinstance(ended.verdict, RetryRun):
            number += 1
            if ended is not None and isinstance(ended.verdict, RetryRun) and number > len(used) + MAX_ATTEMPTS:
                return _RunEnd(await self._fail(planned, ended, ended.verdict.error), ended.generations)
            acknowledged = ended.acknowledged if ended else earlier
            planned = planned if number == 1 else planned.next_attempt(number, acknowledged, records.results(run_id))
            self.granted(planned.setting.env)
            async with self.slots:
                ended = await self.attempts.begin(planned, self._prior_state(start, acknowledged), self.widest)
        if isinstance(ended.verdict, FailedRun):
            return _RunEnd(await self._fail(planned, ended, ended.verdict.error), ended.generations)
        return _RunEnd(ended.verdict, ended.generations)

    async def _finish_last_attempt(self, planned: Plan, start: Start, used: tuple[int, ...]) -> AttemptResult | None:
        """Complete the last attempt of an orchestrator that is gone; None if nothing is left of it."""
        context, records, run_id = self.context, self.context.records, planned.run.run_id
        earlier = records.earlier(run_id)
        if not used:
            return None
        last = planned if len(used) == 1 else planned.next_attempt(len(used), earlier, records.results(run_id))
        if used[-1] in ordinals(context.directory):
            async with self.slots:
                return await self.attempts.reattach(last, self._prior_state(start, earlier), used[-1], self.widest)
        if earlier is None or not earlier.is_stopped:
            return None
        await context.publish(EventLine.from_event(synthetic_terminal_event(last.run, earlier, context.clock())))
        return AttemptResult(earlier, earlier, records.calls_made(run_id))

    def _prior_state(self, start: Start, acknowledged: Checkpoint | None) -> PriorState:
        recorded_usage = self.context.records.recorded_usage(start.checkpoint.run_id)
        return PriorState(start.checkpoint.usage, recorded_usage, acknowledged)

    async def _fail(self, planned: Plan, ended: AttemptResult, error: RunError) -> Checkpoint:
        run = planned.run
        checkpoint = give_up(run, ended.acknowledged, error)
        await self.context.records.keep_checkpoint(checkpoint)
        await self.context.publish(
            EventLine.from_event(synthetic_terminal_event(run, checkpoint, self.context.clock()))
        )
        return checkpoint


@dataclass(frozen=True, slots=True)
class _RunEnd:
    """A Run's last checkpoint and its number of model calls."""

    checkpoint: Checkpoint
    generations: int
