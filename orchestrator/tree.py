"""The tree of Runs that a job is: an Expert's Runs one after another, its delegates beside one another."""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from orchestrator.attempt import Attempts, Ended
from orchestrator.broker.assignment import Past
from orchestrator.collect import Collected
from orchestrator.delegation import MAX_RUNS, Child, Ending, children, resume
from orchestrator.launching import Place
from orchestrator.outcome import MAX_ATTEMPTS, Again, Broken, broken
from orchestrator.plan import Plan, plan
from orchestrator.state import ordinals
from orchestrator.telling import terminal_event
from orchestrator.wire.checkpoint import Checkpoint, RunError, Status
from orchestrator.wire.run import Start


@dataclass(slots=True)
class Tree:
    """Works Runs until nothing is left to do. At most as many Sandboxes work at once as there are `slots`.

    `granted` is told the names of variables that a Run gets. `begun` are the Runs that the job has had, `widest` is the
    most delegates that one reply has called.
    """

    place: Place
    attempts: Attempts
    slots: asyncio.Semaphore
    granted: Callable[[Iterable[str]], None]
    begun: set[str]
    widest: int = 1

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
        self.widest = max(self.widest, len(parent.delegate_to or ()))
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(self._child(child, depth + 1))
                for child in children(parent, self.place.job.config.experts, depth)
            ]
        return [task.result() for task in tasks]

    async def _child(self, child: Child, depth: int) -> Ending:
        if child.start is None:
            return Ending(child.call, failure=child.refusal)
        if child.start.run_id not in self.begun and len(self.begun) >= MAX_RUNS:
            failure = f"the job has had {MAX_RUNS} Runs, which is its limit; do the work without delegating"
            return Ending(child.call, failure=failure)
        self.begun.add(child.start.run_id)
        return Ending(child.call, await self.run_expert(Start(checkpoint=child.start, query=child.call.query), depth))

    async def _run(self, start: Start) -> "_Worked":
        place, records = self.place, self.place.records
        planned = plan(place.job, start, self.attempts.key, place.clock())
        run_id = planned.run.run_id
        used, earlier = records.sandboxes(run_id), records.earlier(run_id)
        if earlier is not None and earlier.is_stopped and records.is_told(run_id, len(used)):
            return _Worked(earlier, records.calls_made(run_id))
        ended = await self._left_over(planned, start, used)
        number = len(used)
        while ended is None or isinstance(ended.verdict, Again):
            number += 1
            if ended is not None and isinstance(ended.verdict, Again) and number > len(used) + MAX_ATTEMPTS:
                return _Worked(await self._break(planned, ended, ended.verdict.error), ended.generations)
            acknowledged = ended.acknowledged if ended else earlier
            planned = planned if number == 1 else planned.again(number, acknowledged, records.results(run_id))
            self.granted(planned.setting.env)
            async with self.slots:
                ended = await self.attempts.begin(planned, self._past(start, acknowledged), self.widest)
        if isinstance(ended.verdict, Broken):
            return _Worked(await self._break(planned, ended, ended.verdict.error), ended.generations)
        return _Worked(ended.verdict, ended.generations)

    async def _left_over(self, planned: Plan, start: Start, used: tuple[int, ...]) -> Ended | None:
        """Bring to its end what an orchestrator that is gone had begun last; None if nothing is left of it."""
        place, records, run_id = self.place, self.place.records, planned.run.run_id
        earlier = records.earlier(run_id)
        if not used:
            return None
        last = planned if len(used) == 1 else planned.again(len(used), earlier, records.results(run_id))
        if used[-1] in ordinals(place.directory):
            async with self.slots:
                return await self.attempts.take_up(last, self._past(start, earlier), used[-1], self.widest)
        if earlier is None or not earlier.is_stopped:
            return None
        await place.publish(Collected.made_here(terminal_event(last.run, earlier, place.clock())))
        return Ended(earlier, earlier, records.calls_made(run_id))

    def _past(self, start: Start, acknowledged: Checkpoint | None) -> Past:
        answered = self.place.records.answered(start.checkpoint.run_id)
        return Past(start.checkpoint.usage, answered, acknowledged)

    async def _break(self, planned: Plan, ended: Ended, error: RunError) -> Checkpoint:
        run = planned.run
        checkpoint = broken(run, ended.acknowledged, error)
        await self.place.records.keep_checkpoint(checkpoint)
        await self.place.publish(Collected.made_here(terminal_event(run, checkpoint, self.place.clock())))
        return checkpoint


@dataclass(frozen=True, slots=True)
class _Worked:
    """A Run's last checkpoint and how many model calls it made."""

    checkpoint: Checkpoint
    generations: int
