"""A job, from outside: `async with run_job(...) as events: async for recorded in events`."""

import asyncio
import logging
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import replace
from functools import partial

from orchestrator.aio import shielded
from orchestrator.egress.policy import HostRequest
from orchestrator.egress.proxy import EgressNetwork, deny_all
from orchestrator.errors import ConfigError
from orchestrator.jobs.event_stream import JobEvents
from orchestrator.jobs.resume import Resume, stopped_checkpoint
from orchestrator.jobs.runner import JobRunner, JobWork, finished, plan_resume
from orchestrator.jobs.volume_lease import exclusive_volume
from orchestrator.jobs.workspace_copy import as_copy, copied_workspace, place_workspace
from orchestrator.log import hide_in_log, mark_records, pass_to_callbacks
from orchestrator.packages.skill_packages import install_packages
from orchestrator.plan.job import Job
from orchestrator.plan.run_plan import first
from orchestrator.plan.validation import check, check_unchanged, digests
from orchestrator.pool.prewarm import WarmLimit, affordable, capacity_of
from orchestrator.providers import Provider
from orchestrator.sandbox.api import Backend
from orchestrator.store import JobRecords, Store
from orchestrator.units import now
from orchestrator.wire.checkpoint import Checkpoint
from orchestrator.wire.job_record import JobRecord, JobStatus
from orchestrator.wire.masking import hide_in_errors, mask
from orchestrator.workspace.mount import ensure, remember


@asynccontextmanager
async def run_job(  # noqa: PLR0913 - the job's dependencies, and arguments that go with the next release
    job: Job,
    *,
    backend: Backend,
    store: Store,
    provider: Callable[[], AbstractAsyncContextManager[Provider]],
    resume: Resume | None = None,
    consent: Callable[[HostRequest], Awaitable[bool]] = deny_all,
    warm_limit: WarmLimit | None = None,
    check_key: Callable[[], Awaitable[None]] | None = None,
    budget: WarmLimit | None = None,
    go_on: Resume | None = None,
    note: Callable[[str], None] | None = None,
    announce: Callable[[str], None] | None = None,
) -> AsyncIterator[JobEvents]:
    """Run `job`, or continue it as `resume` describes.

    Leaving the block stops all that still runs and removes every Sandbox.

    `consent` is called before a skill reaches an undeclared host, if the skill has a proxy: see `Job.asks`. Jobs of one
    process that share a `warm_limit` keep no more Sandboxes warm together than it allows; without one the job has what
    the backend's machine can afford. `check_key` is called before any container starts, while the engine is checked,
    and raises if the model's API refuses the key. The job's log records have its id as `job_id`; until the block is
    left, no log record contains a secret of the job. `budget` is the old name of `warm_limit`, `go_on` of `resume`,
    `note` and `announce` are called with log messages; all four go with the next release.

    Raises:
        OrchestratorError: the job cannot start; while it runs, iterating raises it.
    """
    if budget is not None:
        warnings.warn("run_job(budget=) is now run_job(warm_limit=)", DeprecationWarning, stacklevel=3)
        warm_limit = warm_limit or budget
    if go_on is not None:
        warnings.warn("run_job(go_on=) is now run_job(resume=)", DeprecationWarning, stacklevel=3)
        resume = resume or go_on
    check(job)
    callbacks = pass_to_callbacks(note, announce, partial(_is_logged_here, job.id), function="run_job")
    with hide_in_errors(job.secrets), hide_in_log(job.secrets), callbacks:
        async with AsyncExitStack() as stack:
            # The caller's block must not be in the job's context: it may be left elsewhere, and work for other jobs.
            with mark_records(job.id):
                await _check(backend, check_key)
                job = replace(job, workspace=ensure(job.workspace))
                job = await place_workspace(job, backend)
                await stack.enter_async_context(exclusive_volume(job, backend))
                remember(job.workspace, job.platform)
                job = await install_packages(job, backend, store.root)
            records = await stack.enter_async_context(_records(job, store, resume))
            work = JobWork(first(job)) if resume is None else _work_of(job, records, resume)
            record = records.job().with_(status=JobStatus.RUNNING, finished_at=None)
            await records.keep_job(record)
            events = JobEvents()
            capacity = await capacity_of(backend)
            network, warm = EgressNetwork(consent=consent), warm_limit or affordable(capacity)
            if (copy := records.copy()) is not None:
                # Its Sandboxes have the copy, whatever the options are now.
                job = as_copy(job, copy.engine, copy.volume)
            copied = copied_workspace(job, backend, records)
            drive = JobRunner(job, backend, store, records, provider, network, events, warm, capacity.cores, copied)
            with mark_records(job.id):
                # A TaskGroup here would wrap exceptions of the caller's block in a group.
                driver = asyncio.create_task(drive.run(record, work))
            try:
                yield events
            finally:
                # Shielded: the caller may be cancelled several times while leaving.
                await shielded(_stopped(driver, record, records))


async def _check(backend: Backend, check_key: Callable[[], Awaitable[None]] | None) -> None:
    if check_key is None:
        await backend.check()
        return
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(backend.check())
            tasks.create_task(_awaited(check_key))
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from None


async def _awaited(call: Callable[[], Awaitable[None]]) -> None:
    await call()


def _is_logged_here(job_id: str, record: logging.LogRecord) -> bool:
    # Records of the backend went to the callbacks of `open_backend`.
    is_backend = record.name.startswith("orchestrator.backends.")
    return getattr(record, "job_id", None) == job_id and not is_backend


def _records(job: Job, store: Store, resume: Resume | None) -> AbstractAsyncContextManager[JobRecords]:
    if resume is not None:
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
    """Stop what still runs; record the cancellation first, in case we are killed meanwhile.

    The driver is stopped even if the record cannot be written.
    """
    if driver.done():
        return
    try:
        await records.keep_job(finished(record, JobStatus.CANCELLED, None))
    finally:
        driver.cancel()
        await asyncio.wait([driver])
    if not driver.cancelled():
        # It had already ended.
        await records.keep_job(driver.result())


def _work_of(job: Job, records: JobRecords, how: Resume) -> JobWork:
    """Decide how to continue; a mismatch is found before anything is written."""
    check_unchanged(job, records.job())
    if how.checkpoint_id is not None:
        stopped = records.checkpoint(how.checkpoint_id)
        if not _has_ended(records, stopped):
            message = (
                f"the Run of checkpoint {stopped.id!r} was cut off; finish it first with perstack-orch resume {job.id}"
            )
            raise ConfigError(message)
        return JobWork(plan_resume(job, records, how, stopped), stopped=stopped, is_continued=True)
    began = records.starts()
    last = began[-1] if began else first(job)
    end = stopped_checkpoint(last, records.earlier)
    if end is None and how.text is not None:
        # A job that looks interrupted may have ended in a checkpoint that cannot be read.
        records.check_checkpoints()
    # A job whose last event is missing is worked again: no work is repeated, only that event is published.
    if end is None or not _has_ended(records, end):
        return JobWork(last, then=how, is_continued=True)
    return JobWork(plan_resume(job, records, how, end), stopped=end, is_continued=True)


def _has_ended(records: JobRecords, checkpoint: Checkpoint) -> bool:
    """Whether all events of the Run that left a checkpoint were published."""
    return records.has_terminal_event(checkpoint.run_id, len(records.sandboxes(checkpoint.run_id)))
