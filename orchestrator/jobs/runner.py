"""A job from its start to its end: broker, pool, tree of Runs, and its records."""

import asyncio
import itertools
from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from orchestrator.aio import exit_in_thread, in_thread, shielded
from orchestrator.broker.listener import open_listener
from orchestrator.broker.masking_provider import with_masking
from orchestrator.broker.run_records import RunRecords
from orchestrator.broker.server import Broker
from orchestrator.disk.deletion import delete
from orchestrator.egress.policy import EgressDecision
from orchestrator.egress.proxy import EgressNetwork
from orchestrator.errors import OrchestratorError
from orchestrator.jobs.attempt import Attempts
from orchestrator.jobs.delegation import last_text
from orchestrator.jobs.event_stream import JobEvents
from orchestrator.jobs.outcome import Outcome, job_status
from orchestrator.jobs.receipt import Receipt
from orchestrator.jobs.resume import Resume, resumed_start
from orchestrator.jobs.run_tree import RunTree
from orchestrator.jobs.workspace_copy import CopiedWorkspace, lock_of
from orchestrator.log import get_logger
from orchestrator.plan.job import Job
from orchestrator.pool.garbage_collection import remove_orphans
from orchestrator.pool.launch import LaunchContext
from orchestrator.pool.pool import Pool
from orchestrator.pool.prewarm import WarmLimit, at_start
from orchestrator.pool.state_directories import directory_of, job_directory, ordinals, remove_unused
from orchestrator.providers import Provider
from orchestrator.sandbox.api import Backend
from orchestrator.sandbox.naming import LEASE, SANDBOX, instance_labels, job_labels, sandbox_name
from orchestrator.store import JobRecords, Store
from orchestrator.units import now
from orchestrator.wire.checkpoint import Checkpoint
from orchestrator.wire.event import ProxyAccess
from orchestrator.wire.identity import identify
from orchestrator.wire.job_record import JobRecord, JobStatus
from orchestrator.wire.line import EventLine
from orchestrator.wire.masking import hide
from orchestrator.wire.run import RunSetting, Start
from orchestrator.workspace.mount import copy_read_only

_log = get_logger(__name__)
_ORPHAN_CHECK_SECONDS = 10


@dataclass(frozen=True, slots=True)
class JobWork:
    """The work of a job: run `start`, if any, then continue as `then` defines; without `start`, it ended at `stopped`.

    A job that `is_continued` may have left Sandboxes behind that still work.
    """

    start: Start | None
    then: Resume | None = None
    stopped: Checkpoint | None = None
    is_continued: bool = False


@dataclass(frozen=True, slots=True)
class _JobEnd:
    """A job's final record, and what its events end with: an outcome, or an error of the platform."""

    record: JobRecord
    outcome: Outcome | None = None
    error: BaseException | None = None


@dataclass(frozen=True, slots=True)
class JobRunner:
    """Drives a job. `cores` are those of the machine that Sandboxes run on."""

    job: Job
    backend: Backend
    store: Store
    records: JobRecords
    provider: Callable[[], AbstractAsyncContextManager[Provider]]
    network: EgressNetwork
    events: JobEvents
    warm_limit: WarmLimit
    cores: int
    copied: CopiedWorkspace | None = None

    async def run(self, record: JobRecord, work: JobWork) -> JobRecord:
        """Do `work`; `record` is the job's, as running. Return the final record.

        The result, success or failure, is reported through the job's events.
        """
        try:
            end = await self._run_to_end(record, work)
        except asyncio.CancelledError:
            if (trouble := await self._bring_back()) is not None:
                _log.warning("%s", trouble)
            raise
        if (trouble := await self._bring_back()) is not None:
            end = replace(end, outcome=None, error=end.error or trouble)
        try:
            await self.records.keep_job(end.record)
        except Exception as error:  # noqa: BLE001 - reported to the consumer, which must not wait forever
            # An earlier failure is the better explanation: a full disk usually caused both.
            end = replace(end, outcome=None, error=end.error or error)
        self.events.close(end.outcome, end.error)
        return end.record

    async def _bring_back(self) -> OrchestratorError | None:
        """Copy a copied workspace back, even if this job is cancelled meanwhile; return the reason if that fails."""
        if self.copied is None:
            return None
        try:
            await shielded(self.copied.bring_back())
        except OrchestratorError as error:
            return error
        return None

    async def _run_to_end(self, record: JobRecord, work: JobWork) -> _JobEnd:
        last = work.stopped
        limit = asyncio.timeout(self.job.options.job_seconds)
        try:
            async with limit:
                if work.start is None:
                    # The previous orchestrator may have been killed when only the cleanup was left.
                    await self._remove_all_but(set(), self._directory)
                    await in_thread(partial(remove_unused, self._directory))
                else:
                    last = await self._begin(work.start, is_continued=work.is_continued)
                if work.then is not None and last is not None:
                    start = plan_resume(self.job, self.records, work.then, last)
                    last = last if start is None else await self._begin(start, is_continued=work.is_continued)
            return _JobEnd(record) if last is None else self._end_of(record, last)
        except Exception as error:  # noqa: BLE001 - any error is reported to the consumer
            if limit.expired():
                return self._timed_out(record)
            status = JobStatus.STOPPED_BY_ERROR if last is None else job_status(last)
            return _JobEnd(finished(record, status, last), error=_cause(error))

    def _end_of(self, record: JobRecord, last: Checkpoint) -> _JobEnd:
        status = job_status(last)
        cost = None if self.job.price is None else self.job.price.of(last.usage)
        receipt = replace(self._receipt(), usage=last.usage, cost=cost)
        text = last_text(last) if status is JobStatus.COMPLETED else None
        error_text = last.error.message if last.error else None
        shown = hide(self.job.secrets)
        outcome = Outcome(status, text and shown(text), error_text and shown(error_text), receipt)
        return _JobEnd(finished(record, status, last), outcome)

    def _timed_out(self, record: JobRecord) -> _JobEnd:
        # No Run has ended, so the interrupted ones can be continued.
        limit = self.job.options.job_seconds
        message = f"the job reached its limit of {limit:g} s; continue: perstack-orch resume {self.job.id}"
        outcome = Outcome(JobStatus.STOPPED_BY_ERROR, None, message, self._receipt())
        return _JobEnd(finished(record, JobStatus.STOPPED_BY_ERROR, None), outcome)

    def _receipt(self) -> Receipt:
        return replace(self.events.receipt, seconds=(now() - self.events.began) / 1000)

    @property
    def _directory(self) -> Path:
        return directory_of(self.job.instance, self.job.id, self.job.state_root)

    async def _begin(self, start: Start, *, is_continued: bool) -> Checkpoint:
        is_new = start not in self.records.starts()
        if is_new:
            await self.records.keep_start(start)
        job = self.job
        if self.copied is not None and job.workspace.volume is not None and job.workspace.volume.is_copy:
            await self.copied.fill(job)
        made = job_directory(job.instance, job.id, keep_content=is_continued, root=job.state_root)
        async with exit_in_thread(made) as directory:
            copy_read_only(job.workspace, directory)
            async with (
                open_listener(self.backend, await self.records.key(), directory) as listener,
                asyncio.TaskGroup() as tasks,
            ):

                def report(access: EgressDecision) -> None:
                    tasks.create_task(self._publish(EventLine.from_event(self._proxy_access(access, next(accesses)))))

                accesses = itertools.count(1)
                provider, run_records = with_masking(self.provider, self.job.secrets), _run_records(self.records)
                files = lock_of(job)
                async with Broker(provider, run_records, report, self.network, listener, files=files) as broker:
                    tasks.create_task(broker.prepare())
                    tasks.create_task(self._remove_orphans())
                    return await self._work(start, directory, broker, is_continued=is_continued, is_new=is_new)

    async def _work(
        self, start: Start, directory: Path, broker: Broker, *, is_continued: bool, is_new: bool
    ) -> Checkpoint:
        settings = self.records.settings() if is_continued else ()
        used = self._known_sandboxes(directory, settings) if is_continued else {}
        if is_continued:
            # If the user went back to a checkpoint, Sandboxes of later Runs could change the new Run's files.
            wanted = set() if is_new else {ordinal for ordinal, wanted in used.items() if wanted}
            await self._remove_all_but(wanted, directory)
        numbers = itertools.count(max(used, default=0) + 1)
        context = LaunchContext(self.job, self.backend, broker, self.records, directory, self._publish, now)
        async with asyncio.TaskGroup() as sandboxes:
            requested = self.job.prewarm
            count = at_start(self.job.expert, self.cores, requested)
            limit = self.warm_limit if requested is None else WarmLimit(requested)
            pool = Pool(context, sandboxes, numbers, count, limit)
            if not self.records.sandboxes(start.checkpoint.run_id):
                pool.begin()
            attempts = Attempts(context, pool, await self.records.key())
            begun = {setting.run_id for setting in settings}
            tree = RunTree(context, attempts, asyncio.Semaphore(self.job.slots), self.events.granted, begun)
            last = await tree.run_expert(start)
            pool.close()
            self.events.has_begun.set()
        if is_continued:
            await self._remove_all_but(set(), directory)
        return last

    def _known_sandboxes(self, directory: Path, settings: Iterable[RunSetting]) -> dict[int, bool]:
        """Return the numbers of all Sandboxes of this job, and whether each may still work on an unfinished Run."""
        used = dict.fromkeys(ordinals(directory), False)
        for setting in settings:
            used |= dict.fromkeys(setting.sandboxes, False)
            earlier = self.records.earlier(setting.run_id)
            published = self.records.has_terminal_event(setting.run_id, len(setting.sandboxes))
            if setting.sandboxes and not (earlier is not None and earlier.is_stopped and published):
                used[setting.sandboxes[-1]] = True
        return used

    async def _remove_all_but(self, wanted: set[int], directory: Path) -> None:
        names = {sandbox_name(self.job.id, ordinal, self.job.instance) for ordinal in wanted}
        labels = instance_labels(self.job.instance) | job_labels(self.job.id)
        await self.backend.prune(labels, lambda found: found.get(SANDBOX) in names or LEASE in found)
        for ordinal in ordinals(directory):
            if ordinal not in wanted:
                await in_thread(partial(delete, directory / str(ordinal)))

    async def _remove_orphans(self) -> None:
        await self.events.has_begun.wait()
        try:
            async with asyncio.timeout(_ORPHAN_CHECK_SECONDS):
                job = self.job
                names = await remove_orphans(self.backend, self.store, job.instance, now() // 1000, job.state_root)
                for name in names:
                    _log.debug("removed orphaned Sandbox %s", name)
        except (OrchestratorError, TimeoutError) as error:
            _log.debug("orphaned Sandboxes could not be removed: %s", str(error) or "it took too long")

    async def _publish(self, collected: EventLine) -> None:
        await self.events.put(await self.records.append(collected.event, collected.line))

    def _proxy_access(self, access: EgressDecision, ordinal: int) -> ProxyAccess:
        return ProxyAccess(
            id=identify(access.run_id, "access", self.events.began, ordinal),
            timestamp=now(),
            job_id=self.job.id,
            run_id=access.run_id,
            action="allowed" if access.allowed else "blocked",
            skill_name=access.skill_name,
            domain=access.host,
            port=access.port,
            reason=access.reason,
        )


def plan_resume(job: Job, records: JobRecords, how: Resume, stopped: Checkpoint) -> Start | None:
    """Return the Start that follows `stopped`; None if only interrupted work remains.

    Raises:
        ConfigError: the text does not fit the checkpoint.
    """
    return resumed_start(how, stopped, job.expert, records.generations(stopped), len(records.starts()))


def finished(record: JobRecord, status: JobStatus, last: Checkpoint | None) -> JobRecord:
    """Return the record of a job with this end; `last` is the coordinator Expert's last checkpoint."""
    changes = {} if last is None else {"total_steps": last.step_number, "usage": last.usage}
    return record.with_(status=status, finished_at=now(), **changes)


def _run_records(records: JobRecords) -> RunRecords:
    return RunRecords(records.keep_checkpoint, records.keep_result, records.keep_reply, records.reply)


def _cause(error: BaseException) -> BaseException:
    """Return the platform's own error from the groups that concurrency wraps around it."""
    while isinstance(error, BaseExceptionGroup):
        error = next((inner for inner in error.exceptions if isinstance(inner, OrchestratorError)), error.exceptions[0])
    return error
