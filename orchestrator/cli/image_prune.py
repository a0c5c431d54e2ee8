"""`perstack-orch image prune`: remove the images of other versions."""

import os


def image_prune() -> int:
    """Remove the images of Sandboxes that other versions built or pulled; print their names.

    Images that you named, and those that a container uses, stay.
    """
    from orchestrator.cli.runtime_images import prune_runtime_images  # noqa: PLC0415 - help does not need it

    return prune_runtime_images(os.environ)
