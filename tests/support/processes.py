"""The processes of this machine."""

from collections.abc import Iterator
from pathlib import Path


def command_lines() -> Iterator[tuple[int, bytes]]:
    """Give number and command line of each process: its words, each with a NUL after it; nothing if it has ended."""
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            yield int(directory.name), (directory / "cmdline").read_bytes()
        except OSError:  # It has ended, or it may not be read.
            continue
