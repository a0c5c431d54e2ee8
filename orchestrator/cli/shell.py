"""`perstack-orch shell`: open a shell in an Expert's Sandbox."""

import os
from typing import Annotated

import typer

from orchestrator.cli.declare import with_options
from orchestrator.cli.options import RunOptions


@with_options(RunOptions)
def shell(
    options: RunOptions,
    expert: Annotated[str, typer.Argument(metavar="EXPERT", help="Key of the Expert in perstack.toml.")],
    command: Annotated[
        list[str] | None, typer.Argument(metavar="-- COMMAND", help="Command to run; default: a shell.")
    ] = None,
    *,
    skill: Annotated[str | None, typer.Option(metavar="NAME", help="Run it as this skill, not as exec.")] = None,
) -> int:
    """Open a shell in the Sandbox that EXPERT gets, with what its commands may reach: try to break out."""
    from orchestrator.cli.sandbox_shell import open_shell  # noqa: PLC0415 - help does not need it

    return open_shell(options.with_(expert_key=expert), skill, command or (), os.environ)
