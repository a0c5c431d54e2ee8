"""Tests in parallel: two processes share them (dev/tests), and a test that measures has the machine to itself."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_GATE, _WORK = Path(__file__), Path(__file__).parents[1] / "conftest.py"
"""Files for the locks. A test that runs alone keeps the gate closed until all running tests have ended."""


@contextmanager
def turn(*, alone: bool, gate: Path = _GATE, work: Path = _WORK) -> Iterator[None]:
    """Wait until this may run: in parallel with others, or after they have ended and before they continue."""
    with gate.open() as passing, work.open() as working:
        fcntl.flock(passing, fcntl.LOCK_EX)
        fcntl.flock(working, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        fcntl.flock(passing, fcntl.LOCK_UN)
        yield
