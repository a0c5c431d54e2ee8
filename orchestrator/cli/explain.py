"""`perstack-orch explain`, as it is typed; its body is imported when it runs."""

import os
from dataclasses import replace
from typing import Annotated

import typer

from orchestrator.cli.options import RunOptions, with_options

_OF_WORK = {"job_id", "continue_latest", "continue_job", "resume_from", "answers", "events", "verbose", "prices"}


@with_options(RunOptions, lambda name: name not in _OF_WORK)
def explain(
    options: RunOptions,
    expert: Annotated[str, typer.Argument(metavar="EXPERT", help="Key of the Expert in perstack.toml.")],
    *,
    json: Annotated[bool, typer.Option("--json", help="Write one JSON object.")] = False,
) -> int:
    """Say what EXPERT and its delegates may read, reach and use, and what cannot be enforced here. Runs no Expert."""
    from orchestrator.cli.explaining import explain as work  # noqa: PLC0415 - it imports everything

    return work(replace(options, expert_key=expert), os.environ, as_json=json)
