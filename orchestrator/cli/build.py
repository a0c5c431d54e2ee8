"""`perstack-orch build`: build an image that contains one Expert."""

import os
from typing import Annotated

import typer

from orchestrator.cli.declare import with_options
from orchestrator.cli.options import ExpertImageOptions


@with_options(ExpertImageOptions)
def build(
    options: ExpertImageOptions,
    expert: Annotated[str, typer.Argument(metavar="EXPERT", help="Expert of perstack.toml.")],
) -> int:
    """Build an image that contains one Expert, its delegates, and the packages of their skills.

    In its container the Experts are processes: the container is their sandbox. It takes the query as its argument.
    """
    from orchestrator.cli.expert_image import build_expert_image  # noqa: PLC0415 - help does not need it

    return build_expert_image(expert, options, os.environ)
