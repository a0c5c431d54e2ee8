"""What the coordinators of a job have written down about their work, beside the records of the job.

    jobs/<job id>/coordinators/<uid of its Job>.json

A Pod that replaces another finds here where its Job began: whether the words of the user are in the records already.
"""

from pathlib import Path

from orchestrator.coordination.messages import Ended
from orchestrator.store import Store
from orchestrator.store.files import make_directory, read_value, write_whole
from orchestrator.wire.frozen import Frozen
from orchestrator.wire.identity import identify
from orchestrator.wire.job import JobRecord


class Coordination(Frozen):
    """One coordinator's work: how many Starts and events the job had when it began, and how it ended."""

    starts: int = 0
    after: int = 0
    ended: Ended | None = None


def read(store: Store, job_id: str, uid: str) -> Coordination | None:
    """Read what is written about a coordinator; None where nothing is.

    Raises:
        StoreError: it is damaged.
    """
    path = _path(store, job_id, uid)
    return read_value(path, Coordination) if path.exists() else None


def begin(store: Store, job_id: str, uid: str) -> tuple[Coordination, bool]:
    """Write down where a coordinator begins, unless that is there; say whether it had begun before.

    Raises:
        StoreError: it is damaged, or the disk refuses.
    """
    known = read(store, job_id, uid)
    if known is not None:
        return known, True
    records = store.read(job_id)
    made = Coordination()
    if records is not None:
        last = max((recorded.event.position or 0 for recorded in records.readable_events()), default=0)
        made = Coordination(starts=len(records.starts()), after=last)
    write(store, job_id, uid, made)
    return made, False


def write(store: Store, job_id: str, uid: str, coordination: Coordination) -> None:
    """Write it.

    Raises:
        StoreError: the disk refuses.
    """
    path = _path(store, job_id, uid)
    for above in (path.parents[3], path.parents[2], path.parents[1], path.parent):
        make_directory(above, exist_ok=True)
    write_whole(path, coordination.to_json())


def record_of(store: Store, job_id: str) -> JobRecord | None:
    """Read the record of a job; None where there is none yet, though a coordinator has begun.

    Raises:
        StoreError: it is damaged.
    """
    if not (store.root / "jobs" / job_id / "job.json").exists():
        return None
    return store.job(job_id)


def latest(store: Store, job_id: str) -> Coordination | None:
    """Read about the coordinator that wrote something down last.

    Raises:
        StoreError: it is damaged.
    """
    paths = sorted(
        (store.root / "jobs" / job_id / "coordinators").glob("*.json"), key=lambda path: path.stat().st_mtime
    )
    return read_value(paths[-1], Coordination) if paths else None


def _path(store: Store, job_id: str, uid: str) -> Path:
    return store.root / "jobs" / job_id / "coordinators" / f"{identify(uid)}.json"
