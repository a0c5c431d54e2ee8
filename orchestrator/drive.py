"""A job from its start to its end: broker, pool and tree of Runs, and what is written down about it."""

import asyncio
import itertools
import os
from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from orchestrator.attempt import Attempts
from orchestrator.backends.naming import SANDBOX, instance_labels, job_labels, sandbox_name
from orchestrator.backends.shielded import apart, in_loop, left_apart
from orchestrator.broker.egress import Access
from orchestrator.broker.file_lock import FileLock
from orchestrator.broker.ledger import Ledger
from orchestrator.broker.proxy import Network
from orchestrator.broker.server import Broker
from orchestrator.clock import now
from orchestrator.collect import Collected
from orchestrator.continuation import GoOn, go_on
from orchestrator.delegation import last_text
from orchestrator.discretion import discreet
from orchestrator.disk.deletion import delete
from orchestrator.entering import opened_door
from orchestrator.errors import OrchestratorError
from orchestrator.job_events import JobEvents
from orchestrator.launching import Place
from orchestrator.mounting import copy_read_only
from orchestrator.outcome import Outcome, job_status
from orchestrator.plan import Job
from orchestrator.pool import Pool
from orchestrator.prewarm import Budget, at_start
from orchestrator.providers import Provider
from orchestrator.receipt import Receipt
from orchestrator.sandbox import Backend
from orchestrator.state import directory_of, job_directory, ordinals, remove_unused
from orchestrator.store import JobRecords, Store
from orchestrator.sweep import sweep
from orchestrator.tree import Tree
from orchestrator.wire.checkpoint import Checkpoint
from orchestrator.wire.identity import identify
from orchestrator.wire.job import JobRecord, JobStatus
from orchestrator.wire.masking import hide
from orchestrator.wire.platform_event import ProxyAccess
from orchestrator.wire.run import RunSetting, Start

_SWEEP_SECONDS = 10


@dataclass(frozen=True, slots=True)
class Agenda:
    """What is to be done: work `start`, if there is one, and then go on as `then` says; else it all ended `stopped`.

    A job that is worked `again` may have left Sandboxes behind that still work.
    """

    start: Start | None
    then: GoOn | None = None
    stopped: Checkpoint | None = None
    again: bool = False


@dataclass(frozen=True, slots=True)
class _Ending:
    """How a job's record is to be left, and what its events tell: an outcome, or an error of the platform."""

    record: JobRecord
    outcome: Outcome | None = None
    error: BaseException | None = None


@dataclass(frozen=True, slots=True)
class Drive:
    """What drives a job. `note` takes remarks for a log, `announce` what a person is to see."""

    job: Job
    backend: Backend
    store: Store
    records: JobRecords
    provider: Callable[[], AbstractAsyncContextManager[Provider]]
    network: Network
    note: Callable[[str], None]
    announce: Callable[[str], None]
    events: JobEvents
    budget: Budget

    async def to_the_end(self, record: JobRecord, agenda: Agenda) -> JobRecord:
        """Work what is on the agenda; `record` is the job's, running. Give the record as it was left.

        What becomes of the job, whatever it is, its events tell.
        """
        ending = await self._ending(record, agenda)
        try:
            await self.records.keep_job(ending.record)
        except Exception as error:  # noqa: BLE001 - whoever iterates gets it, and waits for no more
            # What failed before says more: where the disk is full, it mostly failed for that.
            ending = replace(ending, outcome=None, error=ending.error or error)
        self.events.close(ending.outcome, ending.error)
        return ending.record

    async def _ending(self, record: JobRecord, agenda: Agenda) -> _Ending:
        last = agenda.stopped
        limit = asyncio.timeout(self.job.job_seconds)
        try:
            async with limit:
                if agenda.start is None:
                    # Whoever worked on it last may have been killed when all was done but the clearing up.
                    await self._remove_all_but(set(), self._directory)
                    await apart(partial(remove_unused, self._directory, in_loop(self.announce)))
                else:
                    last = await self._begin(agenda.start, again=agenda.again)
                if agenda.then is not None and last is not None:
                    start = following(self.job, self.records, agenda.then, last)
                    last = last if start is None else await self._begin(start, again=agenda.again)
            return _Ending(record) if last is None else self._ended(record, last)
        except Exception as error:  # noqa: BLE001 - whoever iterates gets it, whatever it is
            if limit.expired():
                return self._late(record)
            status = JobStatus.STOPPED_BY_ERROR if last is None else job_status(last)
            return _Ending(finished(record, status, last), error=_cause(error))

    def _ended(self, record: JobRecord, last: Checkpoint) -> _Ending:
        status = job_status(last)
        cost = None if self.job.price is None else self.job.price.of(last.usage)
        receipt = replace(self._receipt(), usage=last.usage, cost=cost)
        text = last_text(last) if status is JobStatus.COMPLETED else None
        error_text = last.error.message if last.error else None
        shown = hide(self.job.secrets)
        outcome = Outcome(status, text and shown(text), error_text and shown(error_text), receipt)
        return _Ending(finished(record, status, last), outcome)

    def _late(self, record: JobRecord) -> _Ending:
        # No Run says so, and none is over: what was cut off can be gone on with.
        said = f"the job reached its limit of {self.job.job_seconds:g} s; go on with perstack-orch resume {self.job.id}"
        outcome = Outcome(JobStatus.STOPPED_BY_ERROR, None, said, self._receipt())
        return _Ending(finished(record, JobStatus.STOPPED_BY_ERROR, None), outcome)

    def _receipt(self) -> Receipt:
        return replace(self.events.receipt, seconds=(now() - self.events.began) / 1000)

    @property
    def _directory(self) -> Path:
        return directory_of(self.job.instance, self.job.id, self.job.state_root)

    async def _begin(self, start: Start, *, again: bool) -> Checkpoint:
        is_new = start not in self.records.starts()
        if is_new:
            await self.records.keep_start(start)
        job = self.job
        made = job_directory(job.instance, job.id, again=again, root=job.state_root, note=in_loop(self.announce))
        async with left_apart(made) as directory:
            copy_read_only(job.workspace, directory)
            async with (
                opened_door(self.backend, await self.records.key(), directory, self.note) as door,
                asyncio.TaskGroup() as tasks,
            ):

                def report(access: Access) -> None:
                    tasks.create_task(self._publish(Collected.made_here(self._proxy_access(access, next(accesses)))))

                accesses = itertools.count(1)
                provider, ledger = discreet(self.provider, self.job.secrets), _ledger(self.records)
                files = FileLock.of(job.workspace.path, job.locks_root)
                async with Broker(provider, ledger, report, self.network, door, files=files) as broker:
                    tasks.create_task(broker.prepare())
                    tasks.create_task(self._sweep())
                    return await self._work(start, directory, broker, again=again, is_new=is_new)

    async def _work(self, start: Start, directory: Path, broker: Broker, *, again: bool, is_new: bool) -> Checkpoint:
        settings = self.records.settings() if again else ()
        used = self._used(directory, settings) if again else {}
        if again:
            # Where the user went back, what still works on the Runs left behind would change the files of the new.
            wanted = set() if is_new else {ordinal for ordinal, wanted in used.items() if wanted}
            await self._remove_all_but(wanted, directory)
        numbers = itertools.count(max(used, default=0) + 1)
        place = Place(self.job, self.backend, broker, self.records, directory, self._publish, self.note, now)
        async with asyncio.TaskGroup() as sandboxes:
            wish = self.job.prewarm
            spare = at_start(self.job.expert, os.cpu_count() or 1, wish)
            pool = Pool(place, sandboxes, numbers, spare, self.budget if wish is None else Budget(wish))
            if not self.records.sandboxes(start.checkpoint.run_id):
                pool.begin()
            attempts = Attempts(place, pool, await self.records.key())
            begun = {setting.run_id for setting in settings}
            tree = Tree(place, attempts, asyncio.Semaphore(self.job.slots), self.events.granted, begun)
            last = await tree.run_expert(start)
            pool.close()
            self.events.told.set()
        if again:
            await self._remove_all_but(set(), directory)
        return last

    def _used(self, directory: Path, settings: Iterable[RunSetting]) -> dict[int, bool]:
        """The numbers of all Sandboxes that this job has had, and whether one may still work on an unfinished Run."""
        used = dict.fromkeys(ordinals(directory), False)
        for setting in settings:
            used |= dict.fromkeys(setting.sandboxes, False)
            earlier = self.records.earlier(setting.run_id)
            told = self.records.is_told(setting.run_id, len(setting.sandboxes))
            if setting.sandboxes and not (earlier is not None and earlier.is_stopped and told):
                used[setting.sandboxes[-1]] = True
        return used

    async def _remove_all_but(self, wanted: set[int], directory: Path) -> None:
        names = {sandbox_name(self.job.id, ordinal, self.job.instance) for ordinal in wanted}
        labels = instance_labels(self.job.instance) | job_labels(self.job.id)
        await self.backend.prune(labels, spare=lambda found: found.get(SANDBOX) in names)
        for ordinal in ordinals(directory):
            if ordinal not in wanted:
                await apart(partial(delete, directory / str(ordinal)))

    async def _sweep(self) -> None:
        await self.events.told.wait()
        try:
            async with asyncio.timeout(_SWEEP_SECONDS):
                job = self.job
                names = await sweep(
                    self.backend, self.store, job.instance, now() // 1000, job.state_root, self.announce
                )
                for name in names:
                    self.note(f"removed Sandbox {name}, for which nobody answered any more")
        except (OrchestratorError, TimeoutError) as error:
            self.note(f"Sandboxes that nobody answers for could not be removed: {str(error) or 'it took too long'}")

    async def _publish(self, collected: Collected) -> None:
        await self.events.put(await self.records.append(collected.event, collected.line))

    def _proxy_access(self, access: Access, ordinal: int) -> ProxyAccess:
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


def following(job: Job, records: JobRecords, how: GoOn, stopped: Checkpoint) -> Start | None:
    """The Start that follows `stopped`, if there is more to do than to finish.

    Raises:
        ConfigError: words and checkpoint do not fit together.
    """
    return go_on(how, stopped, job.expert, records.generations(stopped), len(records.starts()))


def finished(record: JobRecord, status: JobStatus, last: Checkpoint | None) -> JobRecord:
    """The record of a job that ended so; `last` is the coordinator's last checkpoint."""
    changes = {} if last is None else {"total_steps": last.step_number, "usage": last.usage}
    return record.with_(status=status, finished_at=now(), **changes)


def _ledger(records: JobRecords) -> Ledger:
    return Ledger(records.keep_checkpoint, records.keep_result, records.keep_reply, records.reply)


def _cause(error: BaseException) -> BaseException:
    """Find the platform's own error in the groups that concurrency wraps around it."""
    while isinstance(error, BaseExceptionGroup):
        error = next((inner for inner in error.exceptions if isinstance(inner, OrchestratorError)), error.exceptions[0])
    return error
