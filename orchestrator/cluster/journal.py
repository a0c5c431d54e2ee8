"""Notes of a job's coordinators about their work, next to the records of the job.

    jobs/<job id>/coordinators/<uid of its Job>.json

A replacement Pod reads here where its Job began: whether the user's message is already in the records.
"""

from pathlib import Path

from orchestrator.cluster.protocol import JobEnded
from orchestrator.store import Store
from orchestrator.store.files import make_directory, read_value, write_file
from orchestrator.wire.frozen import Frozen
from orchestrator.wire.identity import identify
from orchestrator.wire.job_record import JobRecord


class JournalEntry(Frozen):
    """One coordinator's work: how many Starts and events the job had when it began, and how it ended."""

    starts: int = 0
    after: int = 0
    ended: JobEnded | None = None


def read(store: Store, job_id: str, uid: str) -> JournalEntry | None:
    """Read the notes of a coordinator; None if it has none.

    Raises:
        StoreError: they are damaged.
    """
    path = _path(store, job_id, uid)
    return read_value(path, JournalEntry) if path.exists() else None


def begin(store: Store, job_id: str, uid: str) -> tuple[JournalEntry, bool]:
    """Write where a coordinator begins, unless already written; also return whether it had begun before.

    Raises:
        StoreError: the notes are damaged, or the disk refuses the write.
    """
    known = read(store, job_id, uid)
    if known is not None:
        return known, True
    records = store.read(job_id)
    made = JournalEntry()
    if records is not None:
        last = max((recorded.event.position or 0 for recorded in records.readable_events()), default=0)
        made = JournalEntry(starts=len(records.starts()), after=last)
    write(store, job_id, uid, made)
    return made, False


def write(store: Store, job_id: str, uid: str, coordination: JournalEntry) -> None:
    """Write the notes of a coordinator.

    Raises:
        StoreError: the disk refuses the write.
    """
    path = _path(store, job_id, uid)
    for above in (path.parents[3], path.parents[2], path.parents[1], path.parent):
        make_directory(above, exist_ok=True)
    write_file(path, coordination.to_json())


def record_of(store: Store, job_id: str) -> JobRecord | None:
    """Read the record of a job; None if it has none yet, even if a coordinator has begun.

    Raises:
        StoreError: it is damaged.
    """
    if not (store.root / "jobs" / job_id / "job.json").exists():
        return None
    return store.job(job_id)


def latest(store: Store, job_id: str) -> JournalEntry | None:
    """Read the notes of the coordinator that wrote last.

    Raises:
        StoreError: they are damaged.
    """
    paths = sorted(
        (store.root / "jobs" / job_id / "coordinators").glob("*.json"), key=lambda path: path.stat().st_mtime
    )
    return read_value(paths[-1], JournalEntry) if paths else None


def _path(store: Store, job_id: str, uid: str) -> Path:
    return store.root / "jobs" / job_id / "coordinators" / f"{identify(uid)}.json"
