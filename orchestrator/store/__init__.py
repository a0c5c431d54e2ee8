"""Job records on disk, where no Expert can access them.

The directories are Perstack's (docs/reference/perstack.md#files-on-disk), but events are one append-only file per
attempt, and settings hold the names of variables without their values:

    jobs/<job id>/job.json                                   the JobRecord
    jobs/<job id>/lock                                       held by the orchestrator that works on the job
    jobs/<job id>/key                                        the key that the job's secrets derive from
    jobs/<job id>/workspace.json                             what a copied workspace held, until it is copied back
    jobs/<job id>/starts/<n>.json                            the coordinator Expert's start, one per request of the user
    jobs/<job id>/checkpoints/<checkpoint id>.json
    jobs/<job id>/runs/<run id>/run-setting.json
    jobs/<job id>/runs/<run id>/events.jsonl                 events that the host made about the Run
    jobs/<job id>/runs/<run id>/attempt-<n>/events.jsonl     events of the Sandbox, each with its position
    jobs/<job id>/runs/<run id>/replies/<step>-<generation>.json
    jobs/<job id>/runs/<run id>/results/<hash of the tool call's id>.json
"""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from orchestrator.disk.deletion import delete
from orchestrator.errors import StoreError
from orchestrator.store.event_log import EventLog
from orchestrator.store.files import is_real_directory, lock_directory, make_directory, read_value, readable
from orchestrator.store.records import JobRecords
from orchestrator.wire.identity import is_job_id
from orchestrator.wire.job_record import JobRecord
from orchestrator.wire.line import EventLine
from orchestrator.wire.run import RunSetting, Start

__all__ = ["JobRecords", "Recorded", "Store"]

Recorded = EventLine
"""The public name of an event that is in the store, with its position."""

Mask = Callable[[bytes], bytes]
"""Replaces secret values in text or a JSON document before it is written."""

Permit = Callable[[], None]
"""Raises if this process may no longer write to a job's records."""


class Store:
    """The records of all jobs below one directory, which is created with the first job.

    `permit` is called before each write to a job that is held. If `key` is given, a job's secrets derive from it, and
    the store keeps no key.
    """

    def __init__(self, root: Path, *, permit: Permit = lambda: None, key: bytes | None = None) -> None:
        self.root = root
        self._jobs = root / "jobs"
        self._permit = permit
        self._key = key

    @asynccontextmanager
    async def create(
        self, record: JobRecord, *, start: Start | None = None, mask: Mask = bytes
    ) -> AsyncIterator[JobRecords]:
        """Create the records of a new job and hold them while the block runs.

        `start` is written before the job record, so that every existing job can be continued.

        Raises:
            StoreError: the job id exists, is not valid as a directory name, or the disk refuses.
        """
        directory = self._directory(record.id)
        for above in (self.root, self._jobs, directory):
            make_directory(above, exist_ok=True)
        self._refuse_known(record.id)
        with lock_directory(directory):
            # Another process may have created it meanwhile. Without a job record, a process was killed during the
            # creation.
            self._refuse_known(record.id)
            delete(directory / "starts")
            async with self._begin(directory, record, start, mask) as records:
                yield records

    def _refuse_known(self, job_id: str) -> None:
        if (self._jobs / job_id / "job.json").exists():
            message = f"job {job_id!r} is already in the store {self.root}; choose another --job-id"
            raise StoreError(message)

    @asynccontextmanager
    async def _begin(
        self, directory: Path, record: JobRecord, start: Start | None, mask: Mask
    ) -> AsyncIterator[JobRecords]:
        with EventLog(directory) as log, self._records(directory, log, mask) as records:
            if start is not None:
                await records.keep_start(start)
            await records.keep_job(record)
            yield records

    @asynccontextmanager
    async def open(self, job_id: str, *, mask: Mask = bytes) -> AsyncIterator[JobRecords]:
        """Open the records of a job to continue it, and hold them while the block runs.

        Raises:
            StoreError: no such job exists, its records are damaged, or another orchestrator works on it.
        """
        directory = self._directory(job_id)
        if not is_real_directory(directory):
            message = f"job {job_id!r} is not in the store {self.root}; check the id, or name the store with --storage"
            raise StoreError(message)
        with lock_directory(directory), EventLog(directory) as log, self._records(directory, log, mask) as records:
            yield records

    def read(self, job_id: str) -> JobRecords | None:
        """Read the records of a job without holding it, even while an orchestrator works on it; None if it is unknown.

        The returned records are read-only: to write, `open` the job.
        """
        if not is_job_id(job_id) or not is_real_directory(self._jobs / job_id):
            return None
        directory = self._jobs / job_id
        return JobRecords(directory, EventLog(directory), bytes)

    def job(self, job_id: str) -> JobRecord | None:
        """Read only the record of a job; None if it is unknown.

        Raises:
            StoreError: the record is damaged.
        """
        if not is_job_id(job_id) or not is_real_directory(self._jobs / job_id):
            return None
        return read_value(self._jobs / job_id / "job.json", JobRecord)

    def ids(self) -> tuple[str, ...]:
        """List the ids of all jobs, including those whose records cannot be read."""
        return tuple(sorted(path.name for path in self._jobs.glob("*/") if is_job_id(path.name)))

    @contextmanager
    def lock(self, job_id: str) -> Iterator[None]:
        """Prevent other orchestrators from working on a job, without continuing it.

        Raises:
            StoreError: an orchestrator works on it.
        """
        with lock_directory(self._directory(job_id)):
            yield

    def jobs(self) -> tuple[JobRecord, ...]:
        """List all jobs, newest first; unreadable records are left out."""
        found: list[JobRecord] = []
        for path in self._jobs.glob("*/job.json"):
            try:
                found.append(read_value(path, JobRecord))
            except StoreError:
                continue
        return tuple(sorted(found, key=lambda record: (-record.started_at, record.id)))

    def last_used(self) -> JobRecord | None:
        """The job whose Runs were updated last, regardless of its start; None if no job exists.

        See docs/reference/perstack.md#continuing-a-job.
        """
        return max(self.jobs(), key=self._used_at, default=None)

    def _used_at(self, record: JobRecord) -> int:
        settings = readable(self._jobs / record.id / "runs", RunSetting, "*/run-setting.json")
        return max((setting.updated_at for setting in settings), default=record.started_at)

    def _records(self, directory: Path, log: EventLog, mask: Mask) -> JobRecords:
        return JobRecords(directory, log, mask, self._permit, self._key)

    def _directory(self, job_id: str) -> Path:
        if not is_job_id(job_id):
            message = f"job id {job_id!r} is not usable; use 1 to 63 lower-case letters, digits and inner hyphens"
            raise StoreError(message)
        return self._jobs / job_id
