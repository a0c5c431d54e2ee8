"""`perstack-orch demo`: see two Experts work, without a key and a model."""

import os
from typing import Annotated

import typer

from orchestrator.cli.declare import with_options
from orchestrator.cli.options import RunOptions


@with_options(RunOptions)
def demo(
    options: RunOptions,
    directory: Annotated[
        str, typer.Argument(metavar="DIRECTORY", help="Where to put the demo's project.")
    ] = "perstack-demo",
) -> int:
    """Make a small project in DIRECTORY, and run it: two Experts, each in its own container. Needs no key."""
    from orchestrator.cli.demo_project import run_demo  # noqa: PLC0415 - help does not need it

    return run_demo(options, directory, os.environ)
