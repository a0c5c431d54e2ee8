"""Removes orphaned Sandboxes.

An instance is a store: only its own Sandboxes are considered. Those of an interrupted job wait for `resume`.
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from orchestrator.aio import in_thread
from orchestrator.errors import StoreError
from orchestrator.pool.state_directories import directories, directory_of, remove_unused
from orchestrator.sandbox.api import STATE_ROOT, Backend
from orchestrator.sandbox.naming import DEADLINE, JOB, ONE_OFF, instance_labels, job_labels, job_token
from orchestrator.store import Store
from orchestrator.wire.job_record import JobStatus


async def remove_orphans(
    backend: Backend, store: Store, instance: str, now: int, root: Path = STATE_ROOT
) -> tuple[str, ...]:
    """Remove the instance's Sandboxes that are past their deadline or belong to jobs that ended; return their names.

    `now` is Unix seconds, `root` above the instance's state directories. A job that is not in the store has ended;
    one with a damaged record may not have. A one-off Sandbox, which is in no store, is kept until its deadline.

    Raises:
        BackendError: some could not be removed; the others were.
    """
    names = await backend.prune(instance_labels(instance), _still_wanted(store, now))
    cut = {directory_of(instance, record.id, root) for record in store.jobs() if record.status is JobStatus.RUNNING}
    for directory in directories(instance, root):
        if directory not in cut:
            await in_thread(partial(remove_unused, directory))
    return names


async def remove_interrupted(backend: Backend, store: Store, instance: str, root: Path = STATE_ROOT) -> tuple[str, ...]:
    """Remove the Sandboxes of interrupted jobs, unless a process works on the job; return their names.

    Raises:
        BackendError: some could not be removed.
    """
    names: list[str] = []
    for record in store.jobs():
        if record.status is not JobStatus.RUNNING:
            continue
        try:
            # Locked, so that no process resumes the job while its Sandboxes are removed.
            with store.lock(record.id):
                names += await backend.prune(instance_labels(instance) | job_labels(record.id))
                await in_thread(partial(remove_unused, directory_of(instance, record.id, root)))
        except StoreError:
            continue
    return tuple(sorted(names))


def _still_wanted(store: Store, now: int) -> Callable[[Mapping[str, str]], bool]:
    def still_wanted(labels: Mapping[str, str]) -> bool:
        # Called after the Sandbox was found: a resumed job is running in its record before it launches any.
        return _deadline(labels) > now and (ONE_OFF in labels or _is_running(store, labels.get(JOB, "")))

    return still_wanted


def _deadline(labels: Mapping[str, str]) -> int:
    text = labels.get(DEADLINE, "")
    return int(text) if text.isdecimal() else 0


def _is_running(store: Store, token: str) -> bool:
    job_id = next((known for known in store.ids() if job_token(known) == token), None)
    if job_id is None:
        return False
    try:
        record = store.job(job_id)
    except StoreError:
        return True
    return record is not None and record.status is JobStatus.RUNNING
