"""`perstack-orch start`: run a job as a conversation in the terminal."""

import os
from typing import Annotated

import typer

from orchestrator.cli.declare import with_options
from orchestrator.cli.options import RunOptions


@with_options(RunOptions)
def start(
    options: RunOptions,
    expert: Annotated[
        str | None, typer.Argument(metavar="EXPERT", help="Key of the Expert; default: you choose.")
    ] = None,
    query: Annotated[
        str | None, typer.Argument(metavar="QUERY", help="Task for the Expert; default: enter it at a prompt.")
    ] = None,
) -> int:
    """Run EXPERT as a conversation: its work live, its questions to you, and your next query."""
    from orchestrator.cli.conversation import converse  # noqa: PLC0415 - help does not need it

    return converse(options.with_(expert_key=expert or "", query=query or None), os.environ)
