"""Removing Sandboxes that nobody answers for any more.

An instance is a store: only its own Sandboxes are ever looked at. Those of a job that was cut off wait for `resume`.
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from orchestrator.backends.naming import DEADLINE, ERRAND, JOB, instance_labels, job_labels, job_token
from orchestrator.backends.shielded import apart, in_loop
from orchestrator.errors import StoreError
from orchestrator.sandbox import STATE_ROOT, Backend
from orchestrator.state import directories, directory_of, remove_unused
from orchestrator.store import Store
from orchestrator.wire.job import JobStatus


async def sweep(  # noqa: PLR0913, PLR0917 - whose Sandboxes, and by when
    backend: Backend,
    store: Store,
    instance: str,
    now: int,
    root: Path = STATE_ROOT,
    note: Callable[[str], None] = lambda _: None,
) -> tuple[str, ...]:
    """Remove the instance's Sandboxes that are past their deadline or belong to jobs that ended; give their names.

    `now` is Unix seconds, `root` above the instance's state directories. A job that the store does not know has ended;
    one whose record is damaged may not have. An errand, which no store knows, has until its deadline. `note` is told of
    each directory that cannot be removed.

    Raises:
        BackendError: some could not be removed; the others are.
    """
    names = await backend.prune(instance_labels(instance), spare=_still_wanted(store, now))
    cut = {directory_of(instance, record.id, root) for record in store.jobs() if record.status is JobStatus.RUNNING}
    for directory in directories(instance, root):
        if directory not in cut:
            await apart(partial(remove_unused, directory, in_loop(note)))
    return names


async def sweep_cut(
    backend: Backend,
    store: Store,
    instance: str,
    root: Path = STATE_ROOT,
    note: Callable[[str], None] = lambda _: None,
) -> tuple[str, ...]:
    """Remove the Sandboxes of jobs that were cut off, as long as nobody works on them; give their names.

    `note` is told of each directory that cannot be removed.

    Raises:
        BackendError: some could not be removed.
    """
    names: list[str] = []
    for record in store.jobs():
        if record.status is not JobStatus.RUNNING:
            continue
        try:
            # Held, so that nobody goes on with the job while its Sandboxes are removed.
            with store.held(record.id):
                names += await backend.prune(instance_labels(instance) | job_labels(record.id))
                await apart(partial(remove_unused, directory_of(instance, record.id, root), in_loop(note)))
        except StoreError:
            continue
    return tuple(sorted(names))


def _still_wanted(store: Store, now: int) -> Callable[[Mapping[str, str]], bool]:
    def still_wanted(labels: Mapping[str, str]) -> bool:
        # Asked after the Sandbox was found: a job that goes on says so in its record before it launches any.
        return _deadline(labels) > now and (ERRAND in labels or _is_running(store, labels.get(JOB, "")))

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
