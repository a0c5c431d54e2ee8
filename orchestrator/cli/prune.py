"""`perstack-orch prune`: remove orphaned Sandboxes."""

import os
from typing import Annotated

import typer

from orchestrator.cli.declare import with_options
from orchestrator.cli.options import RunOptions


@with_options(RunOptions)
def prune(
    options: RunOptions,
    *,
    everything: Annotated[
        bool, typer.Option("--all", help="Also Sandboxes of interrupted jobs that no process works on.")
    ] = False,
) -> int:
    """Remove Sandboxes of this store whose job has ended or is past its deadline; print their names.

    In a cluster: remove all that ended jobs left, except users' claims; of all users if none is named.
    """
    from orchestrator.cli.pruning import print_pruned  # noqa: PLC0415 - help does not need it

    return print_pruned(options, os.environ, everything=everything)
