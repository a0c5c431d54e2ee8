"""`perstack-orch watch`: follow a job in a cluster."""

import os
from typing import Annotated

import typer

from orchestrator.cli.declare import with_options
from orchestrator.cli.options import RunOptions


@with_options(RunOptions)
def watch(
    options: RunOptions,
    job: Annotated[str, typer.Argument(metavar="JOB", help="Id of the job.")],
    *,
    after: Annotated[int, typer.Option(metavar="POSITION", min=0, help="Start with the event after this one.")] = 0,
) -> int:
    """Follow JOB in a cluster until it ends, with output as from `run`; a job that has ended is replayed."""
    from orchestrator.cli.job_watcher import watch_job  # noqa: PLC0415 - help does not need it

    return watch_job(options, job, after, os.environ)
