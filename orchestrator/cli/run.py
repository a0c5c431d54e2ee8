"""`perstack-orch run`: run a job for a script; events go to stdout, the job's status to stderr."""

import os
from typing import Annotated

import typer

from orchestrator.cli.declare import with_options
from orchestrator.cli.options import RunOptions


@with_options(RunOptions)
def run(
    options: RunOptions,
    expert: Annotated[str, typer.Argument(metavar="EXPERT", help="Key of the Expert in perstack.toml.")],
    query: Annotated[
        str, typer.Argument(metavar="QUERY", help="Task for the Expert; after -- it may begin with a dash.")
    ],
) -> int:
    """Run EXPERT with QUERY; its events go to stdout, one JSON object per line."""
    from orchestrator.cli.cluster_options import is_submitted  # noqa: PLC0415 - help does not need it

    options = options.with_(expert_key=expert, query=query)
    if is_submitted(options):
        from orchestrator.cli.cluster_job import submit  # noqa: PLC0415 - only for jobs in a cluster

        return submit(options, os.environ)
    from orchestrator.cli.local_job import run_local  # noqa: PLC0415 - help does not need it

    return run_local(options, os.environ)
