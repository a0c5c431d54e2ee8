"""`perstack-orch coordinate`: run the job in /job; runs in a coordinator's Pod, users do not call it."""

import os

from orchestrator.cli.declare import with_options
from orchestrator.cli.options import RunOptions


@with_options(RunOptions)
def coordinate(options: RunOptions) -> int:
    """Run the job in /job, in a Pod of the cluster."""
    from orchestrator.cli.submitted_job import work_submitted  # noqa: PLC0415 - help does not need it

    return work_submitted(options, os.environ)
