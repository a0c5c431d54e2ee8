"""`perstack-orch image build`: build the image of Sandboxes of this version."""

import os

from orchestrator.cli.declare import with_options
from orchestrator.cli.options import BuildOptions


@with_options(BuildOptions)
def image_build(options: BuildOptions) -> int:
    """Build the image of Sandboxes of this version at the Docker engine, unless it has it; print the image's names.

    A command that needs the image builds it too. An image that exists is built again only for another --base.
    """
    from orchestrator.cli.runtime_images import build_runtime_image  # noqa: PLC0415 - help does not need it

    return build_runtime_image(options, os.environ)
