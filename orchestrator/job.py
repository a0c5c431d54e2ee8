"""A job, from outside: `async with run_job(...) as events: async for recorded in events`."""

import asyncio
import itertools
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace

from orchestrator.backends.naming import instance_labels, job_labels
from orchestrator.broker.egress import Access, Wanted
from orchestrator.broker.ledger import Ledger
from orchestrator.broker.proxy import Network, nobody_consents
from orchestrator.broker.server import Broker
from orchestrator.collect import Collected
from orchestrator.continuation import GoOn, reached
from orchestrator.continuation import go_on as go_on_from
from orchestrator.delegation import last_text
from orchestrator.errors import OrchestratorError
from orchestrator.masking import mask
from orchestrator.outcome import Outcome, job_status
from orchestrator.packages import with_packages
from orchestrator.plan import Job, check, check_unchanged, digests, first
from orchestrator.pool import Place, Pool
from orchestrator.prewarm import at_start
from orchestrator.providers import Provider
from orchestrator.receipt import Receipt
from orchestrator.sandbox import Backend
from orchestrator.state import job_directory
from orchestrator.store import JobRecords, Recorded, Store
from orchestrator.sweep import sweep
from orchestrator.tree import Tree
from orchestrator.wire.checkpoint import Checkpoint
from orchestrator.wire.identity import identify
from orchestrator.wire.job import JobRecord, JobStatus
from orchestrator.wire.platform_event import ProxyAccess
from orchestrator.wire.run import Start
from orchestrator.workspace import ensure

_QUEUE = 1024
"""Events that wait for whoever iterates; then the collectors wait too."""

_SWEEP_SECONDS = 10


class JobEvents:
    """The events of a job in the order of their position, each stored before it is seen.

    `outcome` stands once iteration is over.
    """

    def __init__(self) -> None:
        self._queue: asyncio.Queue[Recorded | None] = asyncio.Queue(_QUEUE)
        self._error: BaseException | None = None
        self.outcome: Outcome | None = None
        self.began = _now()
        self.receipt = Receipt()
        self.told = asyncio.Event()
        """Set with the first event: what nobody waits for may begin."""

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
        self.told.set()
        await self._queue.put(recorded)

    async def close(self, outcome: Outcome | None, error: BaseException | None) -> None:
        """End the stream."""
        self.outcome, self._error = outcome, error
        await self._queue.put(None)


@asynccontextmanager
async def run_job(  # noqa: PLR0913 - what a job needs from outside
    job: Job,
    *,
    backend: Backend,
    store: Store,
    provider: Callable[[], AbstractAsyncContextManager[Provider]],
    go_on: GoOn | None = None,
    note: Callable[[str], None] = lambda _: None,
    announce: Callable[[str], None] = lambda _: None,
    consent: Callable[[Wanted], Awaitable[bool]] = nobody_consents,
) -> AsyncIterator[JobEvents]:
    """Run `job`, or go on with it; leaving the block stops whatever still runs and removes every Sandbox.

    `note` gets remarks that belong in a log: refused lines, trouble while clearing up. `announce` is told what takes
    long before anything else happens: packages that are installed. `consent` is asked before a skill reaches a host
    that nobody declared, as far as it has a proxy: see `Job.asks`.

    Raises:
        OrchestratorError: the job cannot start; while it runs, iterating raises it.
    """
    check(job)
    await backend.check()
    ensure(job.workspace)
    job = await with_packages(job, backend, store.root, announce)
    async with _records(job, store, go_on) as records:
        agenda = Agenda(first(job)) if go_on is None else _agenda(job, records, go_on)
        if go_on is not None:
            # What an orchestrator that is gone left behind would work on the same Runs.
            await backend.prune(instance_labels(job.instance) | job_labels(job.id))
        record = records.job().with_(status=JobStatus.RUNNING, finished_at=None)
        await records.keep_job(record)
        events = JobEvents()
        drive = _Drive(job, backend, store, records, provider, Network(consent=consent), note, events)
        # A TaskGroup here would wrap whatever the caller's block raises in a group of its own.
        driver = asyncio.create_task(drive.to_the_end(record, agenda))
        try:
            yield events
        finally:
            driver.cancel()
            await asyncio.wait([driver])
            if driver.cancelled():
                await records.keep_job(_finished(record, JobStatus.CANCELLED, None))


def _records(job: Job, store: Store, go_on: GoOn | None) -> AbstractAsyncContextManager[JobRecords]:
    if go_on is not None:
        return store.open(job.id, mask=mask(job.secrets))
    record = JobRecord(
        id=job.id,
        coordinator_expert_key=job.expert.key,
        total_steps=1,
        max_steps=job.max_steps,
        started_at=_now(),
        experts=digests(job),
    )
    return store.create(record, start=first(job), mask=mask(job.secrets))


@dataclass(frozen=True, slots=True)
class Agenda:
    """What is to be done: work `start`, if there is one, and then go on as `then` says; else it all ended `stopped`."""

    start: Start | None
    then: GoOn | None = None
    stopped: Checkpoint | None = None


def _agenda(job: Job, records: JobRecords, how: GoOn) -> Agenda:
    """Decide how to go on; whatever does not fit is found before anything is written."""
    check_unchanged(job, records.job().experts)
    began = records.starts()
    last = began[-1] if began else first(job)
    stopped = records.checkpoint(how.checkpoint_id) if how.checkpoint_id else reached(last, records.earlier)
    if stopped is None:
        return Agenda(last, then=how)
    return Agenda(_following(job, records, how, stopped), stopped=stopped)


def _following(job: Job, records: JobRecords, how: GoOn, stopped: Checkpoint) -> Start | None:
    return go_on_from(how, stopped, job.expert, records.generations(stopped.run_id), len(records.starts()))


@dataclass(frozen=True, slots=True)
class _Drive:
    job: Job
    backend: Backend
    store: Store
    records: JobRecords
    provider: Callable[[], AbstractAsyncContextManager[Provider]]
    network: Network
    note: Callable[[str], None]
    events: JobEvents

    async def to_the_end(self, record: JobRecord, agenda: Agenda) -> None:
        last = agenda.stopped
        limit = asyncio.timeout(self.job.job_seconds)
        try:
            async with limit:
                if agenda.start is not None:
                    last = await self._begin(agenda.start)
                if agenda.then is not None and last is not None:
                    following = _following(self.job, self.records, agenda.then, last)
                    last = last if following is None else await self._begin(following)
        except Exception as error:  # noqa: BLE001 - whoever iterates gets it, whatever it is
            if limit.expired():
                await self._stop_late(record)
                return
            status = JobStatus.STOPPED_BY_ERROR if last is None else job_status(last)
            await self.records.keep_job(_finished(record, status, last))
            await self.events.close(None, _cause(error))
            return
        if last is None:
            return
        status = job_status(last)
        await self.records.keep_job(_finished(record, status, last))
        cost = None if self.job.price is None else self.job.price.of(last.usage)
        receipt = replace(self.events.receipt, usage=last.usage, cost=cost, seconds=(_now() - self.events.began) / 1000)
        text = last_text(last) if status is JobStatus.COMPLETED else None
        error_text = last.error.message if last.error else None
        await self.events.close(Outcome(status, text, error_text, receipt), None)

    async def _stop_late(self, record: JobRecord) -> None:
        # No Run says so, and none is over: what was cut off can be gone on with.
        await self.records.keep_job(_finished(record, JobStatus.STOPPED_BY_ERROR, None))
        said = f"the job reached its limit of {self.job.job_seconds:g} s; go on with perstack-orch resume {self.job.id}"
        receipt = replace(self.events.receipt, seconds=(_now() - self.events.began) / 1000)
        await self.events.close(Outcome(JobStatus.STOPPED_BY_ERROR, None, said, receipt), None)

    async def _begin(self, start: Start) -> Checkpoint:
        if start not in self.records.starts():
            await self.records.keep_start(start)
        return await self._work(start)

    async def _work(self, start: Start) -> Checkpoint:
        ordinals = itertools.count(1)
        with job_directory(self.job.instance, self.job.id) as directory:
            async with asyncio.TaskGroup() as tasks:

                def report(access: Access) -> None:
                    tasks.create_task(self._publish(Collected.made_here(self._proxy_access(access, next(accesses)))))

                accesses = itertools.count(1)
                async with Broker(self.provider, _ledger(self.records), report, self.network) as broker:
                    tasks.create_task(broker.prepare())
                    tasks.create_task(self._sweep())
                    place = Place(self.job, self.backend, broker, directory, self._publish, self.note, _now)
                    async with asyncio.TaskGroup() as sandboxes:
                        spare = at_start(self.job.expert, os.cpu_count() or 1, self.job.prewarm)
                        pool = Pool(place, sandboxes, ordinals, spare)
                        pool.prepare(1)
                        tree = Tree(place, self.records, pool, asyncio.Semaphore(self.job.slots))
                        last = await tree.run_expert(start)
                        pool.close()
                        self.events.told.set()
                        return last

    async def _sweep(self) -> None:
        await self.events.told.wait()
        try:
            async with asyncio.timeout(_SWEEP_SECONDS):
                for name in await sweep(self.backend, self.store, self.job.instance, _now() // 1000):
                    self.note(f"removed Sandbox {name}, for which nobody answered any more")
        except (OrchestratorError, TimeoutError) as error:
            self.note(f"Sandboxes that nobody answers for could not be removed: {str(error) or 'it took too long'}")

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
