"""`make soak`: what is lost, repeated or left behind when everything around a job goes wrong, counted."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def scratch() -> Iterator[Path]:
    """A directory that a Sandbox's user may pass through, and that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="soak-") as name:
        directory = Path(name)
        directory.chmod(0o711)
        yield directory
