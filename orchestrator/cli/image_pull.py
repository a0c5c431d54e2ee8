"""`perstack-orch image pull`: pull the image of Sandboxes of this version."""

import os

from orchestrator.cli.declare import with_options
from orchestrator.cli.options import PullOptions


@with_options(PullOptions)
def image_pull(options: PullOptions) -> int:
    """Pull the image of Sandboxes of this version from a registry; print its name.

    The image must be made from the files of this version. The login of the docker command line counts.
    """
    from orchestrator.cli.runtime_images import pull_runtime_image  # noqa: PLC0415 - help does not need it

    return pull_runtime_image(options, os.environ)
