"""A job, from outside: `async with run_job(...) as events: async for recorded in events`."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace

from orchestrator.attempt import Place
from orchestrator.broker.egress import Access
from orchestrator.broker.ledger import Ledger
from orchestrator.broker.server import Broker
from orchestrator.collect import Collected
from orchestrator.delegation import last_text
from orchestrator.errors import OrchestratorError
from orchestrator.masking import mask
from orchestrator.outcome import Outcome, job_status
from orchestrator.plan import Job, Start, check, first
from orchestrator.providers import Provider
from orchestrator.receipt import Receipt
from orchestrator.sandbox import Backend
from orchestrator.state import job_directory
from orchestrator.store import JobRecords, Recorded, Store
from orchestrator.tree import Tree
from orchestrator.wire.checkpoint import Checkpoint
from orchestrator.wire.identity import identify
from orchestrator.wire.job import JobRecord, JobStatus
from orchestrator.wire.platform_event import ProxyAccess

_QUEUE = 1024
"""Events that wait for whoever iterates; then the collectors wait too."""


class JobEvents:
    """The events of a job in the order of their position, each stored before it is seen.

    `outcome` stands once iteration is over.
    """

    def __init__(self) -> None:
        self._queue: asyncio.Queue[Recorded | None] = asyncio.Queue(_QUEUE)
        self._error: BaseException | None = None
        self.outcome: Outcome | None = None
        self.receipt = Receipt()

    def __aiter__(self) -> AsyncIterator[Recorded]:
        return self

    async def __anext__(self) -> Recorded:
        """Give the next event.

        Raises:
            OrchestratorError: the platform failed.
        """
        recorded = await self._queue.get()
        if recorded is not None:
            return recorded
        self._queue.put_nowait(None)
        if self._error is not None:
            raise self._error
        raise StopAsyncIteration

    async def put(self, recorded: Recorded) -> None:
        """Add an event; waits while nobody reads."""
        self.receipt = self.receipt.with_event(recorded.event)
        await self._queue.put(recorded)

    async def close(self, outcome: Outcome | None, error: BaseException | None) -> None:
        """End the stream."""
        self.outcome, self._error = outcome, error
        await self._queue.put(None)


@asynccontextmanager
async def run_job(
    job: Job,
    *,
    backend: Backend,
    store: Store,
    provider: Callable[[], AbstractAsyncContextManager[Provider]],
    note: Callable[[str], None] = lambda _: None,
) -> AsyncIterator[JobEvents]:
    """Run `job`; leaving the block stops whatever still runs and removes every Sandbox.

    `note` gets remarks that belong in a log: refused lines, trouble while clearing up.

    Raises:
        OrchestratorError: the job cannot start; while it runs, iterating raises it.
    """
    check(job)
    await backend.check()
    began = _now()
    start = first(job)
    record = JobRecord(
        id=job.id,
        coordinator_expert_key=job.expert.key,
        total_steps=start.checkpoint.step_number,
        max_steps=job.max_steps,
        started_at=began,
    )
    async with store.create(record, mask=mask(job.secrets)) as records:
        events = JobEvents()
        drive = _Drive(job, backend, records, provider, note, events)
        # A TaskGroup here would wrap whatever the caller's block raises in a group of its own.
        driver = asyncio.create_task(drive.to_the_end(record, start))
        try:
            yield events
        finally:
            driver.cancel()
            await asyncio.wait([driver])
            if driver.cancelled():
                await records.keep_job(_finished(record, JobStatus.CANCELLED, None))


@dataclass(frozen=True, slots=True)
class _Drive:
    job: Job
    backend: Backend
    records: JobRecords
    provider: Callable[[], AbstractAsyncContextManager[Provider]]
    note: Callable[[str], None]
    events: JobEvents

    async def to_the_end(self, record: JobRecord, start: Start) -> None:
        try:
            last = await self._work(start)
        except Exception as error:  # noqa: BLE001 - whoever iterates gets it, whatever it is
            await self.records.keep_job(_finished(record, JobStatus.STOPPED_BY_ERROR, None))
            await self.events.close(None, _cause(error))
            return
        status = job_status(last)
        await self.records.keep_job(_finished(record, status, last))
        receipt = replace(self.events.receipt, usage=last.usage, seconds=(_now() - record.started_at) / 1000)
        text = last_text(last) if status is JobStatus.COMPLETED else None
        error_text = last.error.message if last.error else None
        await self.events.close(Outcome(status, text, error_text, receipt), None)

    async def _work(self, start: Start) -> Checkpoint:
        ordinals = itertools.count(1)
        with job_directory() as directory:
            async with asyncio.TaskGroup() as tasks:

                def report(access: Access) -> None:
                    tasks.create_task(self._publish(Collected.made_here(self._proxy_access(access, next(accesses)))))

                accesses = itertools.count(1)
                async with Broker(self.provider, _ledger(self.records), report) as broker:
                    tasks.create_task(broker.prepare())
                    place = Place(self.job, self.backend, broker, directory, self._publish, self.note, _now)
                    async with asyncio.TaskGroup() as sandboxes:
                        tree = Tree(place, self.records, sandboxes, asyncio.Semaphore(self.job.slots), ordinals)
                        return await tree.run_expert(start)

    async def _publish(self, collected: Collected) -> None:
        await self.events.put(await self.records.append(collected.event, collected.line))

    def _proxy_access(self, access: Access, ordinal: int) -> ProxyAccess:
        return ProxyAccess(
            id=identify(access.run_id, "access", ordinal),
            timestamp=_now(),
            job_id=self.job.id,
            run_id=access.run_id,
            action="allowed" if access.allowed else "blocked",
            skill_name=access.skill_name,
            domain=access.host,
            port=access.port,
            reason=access.reason,
        )


def _ledger(records: JobRecords) -> Ledger:
    return Ledger(records.keep_checkpoint, records.keep_result, records.keep_reply, records.reply)


def _finished(record: JobRecord, status: JobStatus, last: Checkpoint | None) -> JobRecord:
    changes = {} if last is None else {"total_steps": last.step_number, "usage": last.usage}
    return record.with_(status=status, finished_at=_now(), **changes)


def _cause(error: BaseException) -> BaseException:
    """Find the platform's own error in the groups that concurrency wraps around it."""
    while isinstance(error, BaseExceptionGroup):
        error = next((inner for inner in error.exceptions if isinstance(inner, OrchestratorError)), error.exceptions[0])
    return error


def _now() -> int:
    return time.time_ns() // 1_000_000
