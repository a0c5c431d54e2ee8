"""Directory trees that are hard to remove, as a container may leave them."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

DIG = """
import os
here = os.open(TOP, os.O_RDONLY | os.O_DIRECTORY)
for _ in range(3000):
    os.mkdir("d", dir_fd=here)
    inner = os.open("d", os.O_RDONLY | os.O_DIRECTORY, dir_fd=here)
    os.close(here)
    here = inner
os.close(here)
"""
"""Makes directories in one another, far deeper than Python calls itself, in the directory TOP."""


def dig(top: Path) -> None:
    """Do that here."""
    exec(DIG, {"TOP": os.fspath(top)})  # noqa: S102 - the very program that containers run


@contextmanager
def cleared(directory: Path) -> Iterator[None]:
    """Leave nothing below a directory that pytest could not remove either."""
    try:
        yield
    finally:
        program = shutil.which("rm")
        assert program is not None
        subprocess.run((program, "-rf", directory), check=False)


@contextmanager
def unremovable(file: Path) -> Iterator[None]:
    """Have a file that nobody can remove, root included; skips the test where there can be none."""
    program = shutil.which("chattr")
    if program is None or subprocess.run((program, "+i", file), capture_output=True, check=False).returncode:
        pytest.skip("no file can be made immutable here")
    try:
        yield
    finally:
        subprocess.run((program, "-i", file), check=True)
