"""`perstack-orch image list`: list the images of Sandboxes at the engine."""

import os


def image_list() -> int:
    """List the images of Sandboxes at the Docker engine: name, version, base, size, and which is this version's."""
    from orchestrator.cli.runtime_images import list_runtime_images  # noqa: PLC0415 - help does not need it

    return list_runtime_images(os.environ)
