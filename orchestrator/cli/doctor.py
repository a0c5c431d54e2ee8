"""`perstack-orch doctor`: check whether a job could run here."""

import os
from typing import Annotated

import typer

from orchestrator.cli.declare import with_options
from orchestrator.cli.options import RunOptions


@with_options(RunOptions)
def doctor(
    options: RunOptions,
    *,
    model_check: Annotated[
        bool, typer.Option("--model-check", help="Also send one free request to the model's API.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object; see docs/doctor.md.")] = False,
) -> int:
    """Check engine, image, Sandbox, network, model, workspace, records and cluster. Runs no Expert.

    Exit code 0: a job could run. Exit code 1: a problem was found.
    """
    from orchestrator.cli.diagnosis import show_diagnosis  # noqa: PLC0415 - help does not need it

    return show_diagnosis(options, os.environ, asks_model=model_check, as_json=json)
