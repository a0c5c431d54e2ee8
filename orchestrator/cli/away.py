"""The commands about jobs that a cluster works, as they are typed; their bodies are imported when they run."""

import os
from typing import Annotated

import typer

from orchestrator.cli.options import ClusterOptions, RunOptions, User, with_options

_WHERE = {"namespace", "installation"}
_OF_INSTALLATION = {"image", "outside", "broker_port", "pod_setting"}
_Job = Annotated[str, typer.Argument(metavar="JOB", help="Id of the job.")]


@with_options(ClusterOptions, (_WHERE | {"start_seconds"}).__contains__)
def watch(
    options: ClusterOptions,
    job: _Job,
    *,
    after: Annotated[int, typer.Option(metavar="POSITION", min=0, help="Begin with the event that follows it.")] = 0,
    user: User = None,
    verbose: Annotated[bool, typer.Option("--verbose", help="Say more on stderr.")] = False,
) -> int:
    """Show JOB, which a cluster works or has worked, as `run` would: its events on stdout, to its end."""
    from orchestrator.cli.attending import attend  # noqa: PLC0415 - it imports everything

    return attend(options, job, after, user, os.environ, verbose=verbose)


@with_options(ClusterOptions, _WHERE.__contains__)
def cancel(options: ClusterOptions, job: _Job, *, user: User = None) -> int:
    """End JOB, which a cluster works; `resume` goes on with it."""
    from orchestrator.cli.attending import cancel as end  # noqa: PLC0415 - the same

    return end(options, job, user, os.environ)


@with_options(RunOptions, _OF_INSTALLATION.__contains__)
def coordinate(options: RunOptions) -> int:
    """Work the job in /job, in a Pod of the cluster."""
    from orchestrator.cli.coordinate import coordinate as work  # noqa: PLC0415 - the same

    return work(options, os.environ)


def tell() -> int:
    """Tell the jobs on the claim to whoever connects, in a Pod of the cluster."""
    from orchestrator.cli.tell import tell as work  # noqa: PLC0415 - the same

    return work()
