"""`perstack-orch start`, as it is typed; its body is imported when it runs."""

import os
from dataclasses import replace
from typing import Annotated

import typer

from orchestrator.cli.options import RunOptions, with_options


@with_options(RunOptions)
def start(
    options: RunOptions,
    expert: Annotated[str | None, typer.Argument(metavar="EXPERT", help="Key of the Expert; else you choose.")] = None,
    query: Annotated[str | None, typer.Argument(metavar="QUERY", help="What it is to do; else you are asked.")] = None,
) -> int:
    """Run EXPERT as a conversation: its work live, its questions to you, and what you say next."""
    from orchestrator.cli.talk import talk  # noqa: PLC0415 - it imports everything

    return talk(replace(options, expert_key=expert or "", query=query or None), os.environ)
