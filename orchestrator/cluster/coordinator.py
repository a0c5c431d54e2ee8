"""A coordinator: it holds the lease lock, runs the job, and serves events to its clients."""

import asyncio
import gc
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from orchestrator.backends import open_backend
from orchestrator.backends.cluster_settings import ClusterSetting
from orchestrator.backends.kubernetes.client import KubernetesClient
from orchestrator.cluster import journal
from orchestrator.cluster.broadcast import Broadcast
from orchestrator.cluster.client import RECORDS, cancelled
from orchestrator.cluster.event_server import serve_events
from orchestrator.cluster.job_request import JobRequest
from orchestrator.cluster.journal import JournalEntry
from orchestrator.cluster.lease import LeaseLock, LeaseLostError, hold_lease
from orchestrator.cluster.protocol import JobEnded, JobStarted
from orchestrator.cluster.self_pod import SelfPod, owner_exists
from orchestrator.cluster.termination_message import write_termination_message
from orchestrator.disk.directory import unwritable_remedy
from orchestrator.errors import (
    BackendError,
    ConfigError,
    InUseError,
    OrchestratorError,
    StoreError,
)
from orchestrator.jobs.outcome import Outcome
from orchestrator.jobs.resume import Resume
from orchestrator.jobs.run_job import run_job
from orchestrator.log import CallbackHandler, attach, get_logger
from orchestrator.plan.job import Job
from orchestrator.plan.make_job import key_check_of, provider_of
from orchestrator.sandbox.keys import derive
from orchestrator.sandbox.naming import coordinator_labels, lease_name
from orchestrator.store import Recorded, Store
from orchestrator.store.files import make_directory
from orchestrator.wire.masking import hide

_log = get_logger(__name__)
_STOPPED = 143
_WITHOUT_LEASE = 3


@dataclass(frozen=True, slots=True)
class PodOutput:
    """What the Pod prints: log lines and events.

    `publish` writes an event, and logs it if it is notable. `finish` logs the receipt, and returns the exit code.
    """

    say: Callable[[str], None]
    warn: Callable[[str], None]
    note: Callable[[str], None]
    publish: Callable[[Recorded], Awaitable[None]]
    finish: Callable[[Outcome], int]


@dataclass(slots=True)
class Coordinator:
    """Runs `job` for `request`, in a Pod of its `own` Job. The job's secrets derive from `key`, else the store's.

    `where` are the arguments by which a client's commands locate the job.
    """

    api: KubernetesClient
    own: SelfPod
    job: Job
    request: JobRequest
    setting: ClusterSetting
    key: bytes | None
    environ: Mapping[str, str]
    where: tuple[str, ...]
    output: PodOutput
    _cancelled: bool = False
    _broadcast: Broadcast = field(init=False)

    def __post_init__(self) -> None:
        job = self.job
        began = JobStarted(after=0, expert_key=job.expert_key, max_steps=job.max_steps)
        self._broadcast = Broadcast(self._stored, began)

    async def run(self, notes: tuple[str, ...]) -> int:
        """Run the job, and serve its events to clients; return the exit code. `notes` go to the log only.

        Raises:
            BackendUnavailableError: the port for clients cannot be opened.
        """
        for text in notes:
            self.output.warn(text)
        broadcast = self._broadcast
        async with serve_events(lambda follow: broadcast.lines(follow.after, follow.last_log_number)):
            try:
                with attach(CallbackHandler(self._send_log)):
                    ended = await self._run_locked()
            except OrchestratorError as error:
                code = BackendError.exit_code if isinstance(error, InUseError) else error.exit_code
                ended = JobEnded(code=code, error=str(error))
            if ended.error is not None:
                write_termination_message(ended, recorded=self._is_recorded())
                sys.stderr.write(f"perstack-orch: {ended.error}\n")
            broadcast.end(ended)
        return ended.code

    async def _run_locked(self) -> JobEnded:
        labels = coordinator_labels(self.job.id, self.own.claim)
        name = lease_name(self.job.id, self.job.instance)
        async with hold_lease(self.api, self.own, name, labels, self._exit_without_lease) as lease:
            task = asyncio.current_task()
            async with run_at_sigterm(lambda: self._stop(lease, task)):
                return await self._run_recorded(lease)

    async def _stop(self, lease: LeaseLock, task: "asyncio.Task[object] | None") -> None:
        """Stop at SIGTERM: leave the Sandboxes running if another Pod will take over the job, else cancel the job."""
        try:
            takes_over = await owner_exists(self.api, self.own)
        except BackendError:
            takes_over = True
        if takes_over:
            self.output.say("this Pod is stopping; another Pod takes over the job")
            await lease.release()
            os._exit(_STOPPED)
        self._cancelled = True
        _log.info("the job is cancelled; its Sandboxes are being removed")
        if task is not None:
            task.cancel()

    def _exit_without_lease(self, why: str) -> None:
        """Exit immediately: this coordinator may no longer write records or touch Sandboxes."""
        sys.stderr.write(f"perstack-orch: {why}; this one exits immediately\n")
        write_termination_message(JobEnded(code=_WITHOUT_LEASE, error=why), recorded=True)
        os._exit(_WITHOUT_LEASE)

    async def _run_recorded(self, lease: LeaseLock) -> JobEnded:
        self._make_records()
        key = None if self.key is None else bytes.fromhex(derive(self.key, "job", self.job.id))
        store = Store(self.setting.claim.root / RECORDS, permit=partial(self._permit, lease), key=key)
        began, again = self._begin(store)
        self._broadcast.began = self._broadcast.began.with_(after=began.after)
        if again and began.ended is not None and began.ended.is_final:
            # The Pod was lost after the job ended, and before the cluster's Job was marked complete.
            return began.ended
        try:
            ended = await self._run_job(store, self._continuation(store, began, again=again))
        except OrchestratorError as error:
            self._keep(lease, store, began.with_(ended=JobEnded(code=error.exit_code, error=str(error))))
            raise
        self._keep(lease, store, began.with_(ended=ended))
        return ended

    def _permit(self, lease: LeaseLock) -> None:
        try:
            lease.check()
        except LeaseLostError as error:
            # An exception would stop Sandboxes that another coordinator owns by now.
            self._exit_without_lease(str(error))

    def _keep(self, lease: LeaseLock, store: Store, entry: JournalEntry) -> None:
        self._permit(lease)
        journal.write(store, self.job.id, self.own.job.uid, entry)

    def _make_records(self) -> None:
        volume = self.setting.claim.root
        try:
            make_directory(volume / RECORDS, exist_ok=True)
        except StoreError as error:
            if not isinstance(error.__cause__, PermissionError):
                raise
            message = f"{volume / RECORDS} cannot be created: {error.__cause__.strerror}; {unwritable_remedy(volume)}"
            raise ConfigError(message) from error

    def _begin(self, store: Store) -> tuple[JournalEntry, bool]:
        job_id, uid = self.job.id, self.own.job.uid
        has_record = journal.record_of(store, job_id) is not None
        if journal.read(store, job_id, uid) is None and has_record is not self.request.go_on:
            if has_record:
                message = f"job {job_id!r} is already in the user's records; choose another --job-id"
            else:
                message = f"job {job_id!r} is not in the user's records; check the id, and --user"
            raise StoreError(message)
        return journal.begin(store, job_id, uid)

    def _continuation(self, store: Store, began: JournalEntry, *, again: bool) -> Resume | None:
        """Return how to continue the job; None for a new job."""
        if journal.record_of(store, self.job.id) is None:
            return None
        records = store.read(self.job.id)
        is_in_records = again and records is not None and len(records.starts()) > began.starts
        if is_in_records or not self.request.go_on:
            return Resume()
        return Resume(self.request.query, is_answer=self.request.answers, checkpoint_id=self.request.resume_from)

    async def _run_job(self, store: Store, how: Resume | None) -> JobEnded:
        job, events = self.job, None
        try:
            async with (
                open_backend(
                    "kubernetes",
                    self.environ,
                    image=job.image,
                    events=job.events,
                    cluster=self.setting,
                ) as backend,
                run_job(
                    job,
                    backend=backend,
                    store=store,
                    provider=provider_of(job),
                    check_key=key_check_of(job),
                    resume=how,
                ) as events,
            ):
                gc.freeze()
                gc.enable()
                async for recorded in events:
                    await self._publish(recorded)
        except asyncio.CancelledError:
            if not self._cancelled:
                raise
            for recorded in events.rest() if events else ():
                await self._publish(recorded)
            return cancelled(self.where, job.id)
        return self._conclude(events.outcome)

    def _conclude(self, outcome: Outcome | None) -> JobEnded:
        if outcome is None:
            message = "the job ended without an outcome; look at its records"
            raise OrchestratorError(message)
        return JobEnded.of(self.output.finish(outcome), outcome)

    async def _publish(self, recorded: Recorded) -> None:
        self._broadcast.event(recorded)
        await self.output.publish(recorded)

    def _is_recorded(self) -> bool:
        return (self.setting.claim.root / RECORDS / "jobs" / self.job.id / "job.json").exists()

    def _stored(self) -> Iterator[Recorded]:
        records = Store(self.setting.claim.root / RECORDS).read(self.job.id)
        return iter(()) if records is None else records.events()

    def _send_log(self, level: int, text: str) -> None:
        """Write a log record to the Pod's own log and to watchers, who decide by its level whether they show it."""
        if level >= logging.WARNING:
            kind, write = "warn", self.output.warn
        elif level >= logging.INFO:
            kind, write = "say", self.output.say
        else:
            kind, write = "note", self.output.note
        write(text)
        self._broadcast.log(kind, hide(self.job.secrets)(text))


@asynccontextmanager
async def run_at_sigterm(stop: Callable[[], Coroutine[Any, Any, None]]) -> AsyncIterator[None]:
    """Run `stop` at the first SIGTERM during the block; what still runs of it when the block is left is cancelled.

    Later signals are ignored: a second cancellation would interrupt the cleanup that the first one started.
    """
    loop = asyncio.get_running_loop()
    stopping: list[asyncio.Task[None]] = []

    def start() -> None:
        if not stopping:
            stopping.append(loop.create_task(stop()))

    loop.add_signal_handler(signal.SIGTERM, start)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGTERM)
        for each in stopping:
            each.cancel()
            await asyncio.wait([each])
