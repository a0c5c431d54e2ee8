"""`perstack-orch shell`, as it is typed; its body is imported when it runs."""

import os
from dataclasses import replace
from typing import Annotated

import typer

from orchestrator.cli.options import CLUSTER, RunOptions, with_options

_TAKEN = {
    *("config", "strict", "workspace", "user", "workspaces", "storage", "backend", "env", "env_path", "allow_domain"),
    *("image", "runtime_class", "run_as", *CLUSTER),
}


@with_options(RunOptions, _TAKEN.__contains__)
def shell(
    options: RunOptions,
    expert: Annotated[str, typer.Argument(metavar="EXPERT", help="Key of the Expert in perstack.toml.")],
    command: Annotated[
        list[str] | None, typer.Argument(metavar="-- COMMAND", help="What to start; else a shell.")
    ] = None,
    *,
    skill: Annotated[str | None, typer.Option(metavar="NAME", help="In the place of this skill, not of exec.")] = None,
) -> int:
    """Open a shell in the Sandbox that EXPERT gets, with what its commands may reach: try to break out."""
    from orchestrator.cli.inside import shell as work  # noqa: PLC0415 - it imports everything

    return work(replace(options, expert_key=expert), skill, tuple(command or ()), os.environ)
