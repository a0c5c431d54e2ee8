"""`perstack-orch explain`: show what a job may do, without running it."""

import os
from typing import Annotated

import typer

from orchestrator.cli.declare import with_options
from orchestrator.cli.options import RunOptions


@with_options(RunOptions)
def explain(
    options: RunOptions,
    expert: Annotated[str, typer.Argument(metavar="EXPERT", help="Key of the Expert in perstack.toml.")],
    *,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> int:
    """Show what EXPERT and its delegates may read, reach and use, and what is not enforced here. Runs no Expert."""
    from orchestrator.cli.explanation import show_explanation  # noqa: PLC0415 - help does not need it

    return show_explanation(options.with_(expert_key=expert), os.environ, as_json=json)
