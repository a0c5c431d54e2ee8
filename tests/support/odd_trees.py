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
for _ in range(1100):
    os.mkdir("deep", dir_fd=here)
    inner = os.open("deep", os.O_RDONLY | os.O_DIRECTORY, dir_fd=here)
    os.close(here)
    here = inner
os.close(here)
"""
"""Makes nested directories in the directory TOP, deeper than Python's recursion limit and than a path can name."""


def dig(top: Path) -> None:
    """Make them in `top`."""
    exec(DIG, {"TOP": os.fspath(top)})  # noqa: S102 - the very program that containers run


@contextmanager
def cleared(directory: Path) -> Iterator[None]:
    """Remove what is left below a directory, which pytest could not remove."""
    try:
        yield
    finally:
        program = shutil.which("rm")
        assert program is not None
        subprocess.run((program, "-rf", directory), check=False)


@contextmanager
def unremovable(file: Path) -> Iterator[None]:
    """Make a file that no user can remove, root included; skip the test if that is not possible."""
    program = shutil.which("chattr")
    if program is None or subprocess.run((program, "+i", file), capture_output=True, check=False).returncode:
        pytest.skip("no file can be made immutable here")
    try:
        yield
    finally:
        subprocess.run((program, "-i", file), check=True)
