"""`perstack-orch record`: write a job's model replies as a script for the scripted provider."""

import os
from typing import Annotated

import typer

from orchestrator.cli.declare import with_options
from orchestrator.cli.options import RecordsOptions


@with_options(RecordsOptions)
def record(
    options: RecordsOptions,
    job: Annotated[str, typer.Argument(metavar="JOB", help="Id of the job.")],
    *,
    output: Annotated[str | None, typer.Option(metavar="FILE", help="File to write; default: stdout.")] = None,
) -> int:
    """Write JOB's model replies to a file; --provider scripted replays them without a model."""
    if options.backend is not None:
        from orchestrator.cli.cluster_log import record_in_cluster  # noqa: PLC0415 - only for jobs in a cluster

        return record_in_cluster(options, job, output, os.environ)
    from orchestrator.cli.replay_script import write_script  # noqa: PLC0415 - help does not need it

    return write_script(options, job, output)
