"""A job, from outside: `async with run_job(...) as events: async for recorded in events`."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace

from orchestrator.backends.shielded import shielded
from orchestrator.broker.egress import Wanted
from orchestrator.broker.proxy import Network, nobody_consents
from orchestrator.checks import check, check_unchanged, digests
from orchestrator.clock import now
from orchestrator.continuation import GoOn, reached
from orchestrator.drive import Agenda, Drive, finished, following
from orchestrator.errors import ConfigError
from orchestrator.job_events import JobEvents
from orchestrator.mounting import ensure, remember
from orchestrator.packages import with_packages
from orchestrator.plan import Job, first
from orchestrator.prewarm import Budget, affordable
from orchestrator.providers import Provider
from orchestrator.sandbox import Backend
from orchestrator.store import JobRecords, Store
from orchestrator.wire.checkpoint import Checkpoint
from orchestrator.wire.job import JobRecord, JobStatus
from orchestrator.wire.masking import hidden_in_errors, mask


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
    budget: Budget | None = None,
) -> AsyncIterator[JobEvents]:
    """Run `job`, or go on with it; leaving the block stops whatever still runs and removes every Sandbox.

    `note` gets remarks that belong in a log: refused lines, trouble while clearing up. `announce` is told what a person
    is to see: packages that are installed first, directories that cannot be removed. `consent` is asked before a skill
    reaches a host that nobody declared, as far as it has a proxy: see `Job.asks`. Jobs of one process that share a
    `budget` keep no more Sandboxes warm together than it allows; without one the job has what this machine can afford.

    Raises:
        OrchestratorError: the job cannot start; while it runs, iterating raises it.
    """
    check(job)
    with hidden_in_errors(job.secrets):
        await backend.check()
        job = replace(job, workspace=ensure(job.workspace))
        remember(job.workspace, job.platform)
        job = await with_packages(job, backend, store.root, announce)
        async with _records(job, store, go_on) as records:
            agenda = Agenda(first(job)) if go_on is None else _agenda(job, records, go_on)
            record = records.job().with_(status=JobStatus.RUNNING, finished_at=None)
            await records.keep_job(record)
            events = JobEvents()
            network, warm = Network(consent=consent), budget or affordable()
            drive = Drive(job, backend, store, records, provider, network, note, announce, events, warm)
            # A TaskGroup here would wrap whatever the caller's block raises in a group of its own.
            driver = asyncio.create_task(drive.to_the_end(record, agenda))
            try:
                yield events
            finally:
                # However often whoever leaves is cancelled.
                await shielded(_stopped(driver, record, records))


def _records(job: Job, store: Store, go_on: GoOn | None) -> AbstractAsyncContextManager[JobRecords]:
    if go_on is not None:
        return store.open(job.id, mask=mask(job.secrets))
    record = JobRecord(
        id=job.id,
        coordinator_expert_key=job.expert.key,
        total_steps=1,
        max_steps=job.max_steps,
        started_at=now(),
        experts=digests(job),
    )
    return store.create(record, start=first(job), mask=mask(job.secrets))


async def _stopped(driver: "asyncio.Task[JobRecord]", record: JobRecord, records: JobRecords) -> None:
    """Stop what still runs; that it is to stop is written down first, should we be killed meanwhile.

    Nothing runs on behind this, though that cannot be written down.
    """
    if driver.done():
        return
    try:
        await records.keep_job(finished(record, JobStatus.CANCELLED, None))
    finally:
        driver.cancel()
        await asyncio.wait([driver])
    if not driver.cancelled():
        # It was at its end already.
        await records.keep_job(driver.result())


def _agenda(job: Job, records: JobRecords, how: GoOn) -> Agenda:
    """Decide how to go on; whatever does not fit is found before anything is written."""
    check_unchanged(job, records.job())
    if how.checkpoint_id is not None:
        stopped = records.checkpoint(how.checkpoint_id)
        if not _is_over(records, stopped):
            message = (
                f"the Run of checkpoint {stopped.id!r} was cut off; finish it first with perstack-orch resume {job.id}"
            )
            raise ConfigError(message)
        return Agenda(following(job, records, how, stopped), stopped=stopped, again=True)
    began = records.starts()
    last = began[-1] if began else first(job)
    end = reached(last, records.earlier)
    if end is None and how.words is not None:
        # What looks cut off may have ended in a checkpoint that cannot be read.
        records.check_checkpoints()
    # One whose last event is missing is worked once more: nothing of it is done again, but it is told.
    if end is None or not _is_over(records, end):
        return Agenda(last, then=how, again=True)
    return Agenda(following(job, records, how, end), stopped=end, again=True)


def _is_over(records: JobRecords, checkpoint: Checkpoint) -> bool:
    """Whether the Run that left a checkpoint has been told to its end."""
    return records.is_told(checkpoint.run_id, len(records.sandboxes(checkpoint.run_id)))
