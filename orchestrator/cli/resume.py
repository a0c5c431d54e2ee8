"""`perstack-orch resume`: finish a job that was interrupted or cancelled."""

import os
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.cwd_guard import refuse_mounted_store
from orchestrator.cli.declare import with_options
from orchestrator.cli.options import RunOptions


@with_options(RunOptions)
def resume(
    options: RunOptions,
    job: Annotated[str, typer.Argument(metavar="JOB", help="Id of the job.")],
    *,
    after: Annotated[
        int | None, typer.Option(metavar="POSITION", min=0, help="First write the stored events after this one.")
    ] = None,
) -> int:
    """Finish JOB after it was interrupted or cancelled; its new events go to stdout."""
    from orchestrator.cli.cluster_options import is_submitted  # noqa: PLC0415 - help does not need it

    options = options.with_(continue_job=job, after=after)
    if is_submitted(options):
        from orchestrator.cli.cluster_job import submit  # noqa: PLC0415 - only for jobs in a cluster

        return submit(options, os.environ)
    from orchestrator.cli.local_job import run_local  # noqa: PLC0415 - help does not need it
    from orchestrator.workspace.users import store_of  # noqa: PLC0415 - the same

    refuse_mounted_store(options.storage, Path.cwd())
    expert_key = _read_expert_key(job, store_of(Path.cwd() / options.storage, options.user))
    return run_local(options.with_(expert_key=expert_key), os.environ)


def _read_expert_key(job_id: str, storage: Path) -> str:
    """Read the key of the job's coordinator Expert.

    Raises:
        StoreError: the job does not exist, or its record is damaged.
    """
    from orchestrator.errors import StoreError  # noqa: PLC0415 - help does not need it
    from orchestrator.store import Store  # noqa: PLC0415 - the same

    record = Store(storage).job(job_id)
    if record is None:
        message = f"job {job_id!r} is not in the store {storage}; see perstack-orch log --jobs"
        raise StoreError(message)
    return record.coordinator_expert_key
