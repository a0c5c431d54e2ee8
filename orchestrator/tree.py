"""The tree of Runs that a job is: an Expert's Runs one after another, its delegates beside one another."""

import asyncio
import secrets
from dataclasses import dataclass, field

from orchestrator.attempt import Ended, attempt
from orchestrator.collect import Collected
from orchestrator.delegation import Child, Ending, children, resume
from orchestrator.outcome import Broken, broken
from orchestrator.plan import Plan, plan
from orchestrator.pool import Place, Pool
from orchestrator.store import JobRecords
from orchestrator.wire.checkpoint import Checkpoint, RunError, Status, Step
from orchestrator.wire.identity import identify
from orchestrator.wire.run import Start
from orchestrator.wire.state_event import StopRunByError


@dataclass(frozen=True, slots=True)
class Tree:
    """Works Runs until nothing is left to do. At most as many Sandboxes work at once as there are `slots`."""

    place: Place
    records: JobRecords
    pool: Pool
    slots: asyncio.Semaphore
    fan_outs: list[int] = field(default_factory=lambda: [1])

    async def run_expert(self, start: Start, depth: int = 0) -> Checkpoint:
        """Work an Expert from `start` to its end, through every delegation; give its last checkpoint.

        Raises:
            OrchestratorError: the platform failed; whatever runs beside is cancelled.
        """
        while True:
            worked = await self._run(start)
            if worked.checkpoint.status is not Status.STOPPED_BY_DELEGATE:
                return worked.checkpoint
            endings = await self._delegate(worked.checkpoint, depth)
            start = Start(
                checkpoint=resume(worked.checkpoint, endings), generations=start.generations + worked.generations
            )

    async def _delegate(self, parent: Checkpoint, depth: int) -> list[Ending]:
        self.fan_outs.append(len(parent.delegate_to or ()))
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(self._child(child, depth + 1))
                for child in children(parent, self.place.job.config.experts, depth)
            ]
        return [task.result() for task in tasks]

    async def _child(self, child: Child, depth: int) -> Ending:
        if child.start is None:
            return Ending(child.call, failure=child.refusal)
        return Ending(child.call, await self.run_expert(Start(checkpoint=child.start, query=child.call.query), depth))

    async def _run(self, start: Start) -> "_Worked":
        credentials = iter(lambda: secrets.token_hex(16), "")
        planned = plan(self.place.job, start, credentials, self.place.clock())
        run_id = planned.run.run_id
        calls = len(self.records.replies(run_id))
        earlier = self.records.earlier(run_id)
        if earlier is not None and earlier.status is not Status.PROCEEDING:
            return _Worked(earlier, calls)
        await self.records.keep_setting(planned.setting)
        if self.records.attempts(run_id):
            planned = planned.again(self.records.attempts(run_id) + 1, earlier, self.records.results(run_id))
        while True:
            ended = await self._attempt(planned)
            calls += ended.generations
            if isinstance(ended.verdict, Checkpoint):
                return _Worked(ended.verdict, calls)
            if isinstance(ended.verdict, Broken):
                return _Worked(await self._break(planned, ended, ended.verdict.error), calls)
            results = self.records.results(run_id)
            planned = planned.again(planned.run.attempt + 1, ended.acknowledged, results)

    async def _attempt(self, planned: Plan) -> Ended:
        async with self.slots:
            return await attempt(self.place, self.pool, planned, max(self.fan_outs))

    async def _break(self, planned: Plan, ended: Ended, error: RunError) -> Checkpoint:
        run = planned.run
        checkpoint = broken(ended.acknowledged or run.checkpoint, error, run.attempt)
        await self.records.keep_checkpoint(checkpoint)
        now = self.place.clock()
        event = StopRunByError(
            id=identify(run.run_id, run.attempt, "broken-event"),
            timestamp=now,
            job_id=run.job_id,
            run_id=run.run_id,
            attempt=run.attempt,
            expert_key=run.expert.key,
            step_number=checkpoint.step_number,
            checkpoint=checkpoint.head,
            step=Step(step_number=checkpoint.step_number, started_at=now, finished_at=now),
            error=error,
        )
        await self.place.publish(Collected.made_here(event))
        return checkpoint


@dataclass(frozen=True, slots=True)
class _Worked:
    """A Run's last checkpoint and how many model calls it made."""

    checkpoint: Checkpoint
    generations: int
