"""`perstack-orch log`: show what a job did, as text or as one JSON object."""

import os

from orchestrator.cli.declare import with_options
from orchestrator.cli.options import LogOptions


@with_options(LogOptions)
def log(options: LogOptions) -> int:
    """Show what a job did: its events, its Runs, or the list of jobs. An event is shown if it passes all filters."""
    if options.backend is not None:
        from orchestrator.cli.cluster_log import log_in_cluster  # noqa: PLC0415 - only for jobs in a cluster

        return log_in_cluster(options, os.environ)
    from orchestrator.cli.local_log import show_log  # noqa: PLC0415 - help does not need it

    return show_log(options)
