"""Tests that measure run alone, and do not wait forever behind others."""

import fcntl
import select
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_PROGRAM = """
import sys
from pathlib import Path
from tests.support.two_processes import turn
files = [Path(name) for name in sys.argv[2:]]
print("waits", flush=True)
with turn(alone=sys.argv[1] == "alone", gate=files[0], work=files[1]):
    print("in", flush=True)
    sys.stdin.read()
"""
_MOMENT = 0.3


class Process:
    """A process that takes a turn until its stdin is closed."""

    def __init__(self, how: str, directory: Path) -> None:
        command = (sys.executable, "-c", _PROGRAM, how, *(str(directory / name) for name in ("gate", "work")))
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, bufsize=0)
        assert self.said(60) == b"waits\n"

    def said(self, seconds: float) -> bytes:
        """Return the next line, or nothing if none comes in time."""
        assert self.process.stdout is not None
        return self.process.stdout.readline() if select.select([self.process.stdout], [], [], seconds)[0] else b""

    @property
    def is_in(self) -> bool:
        """Whether its turn begins within a moment."""
        return self.said(_MOMENT) == b"in\n"

    def end(self) -> None:
        """Close its stdin and wait for its end."""
        self.process.communicate(timeout=60)


def is_held(path: Path) -> bool:
    """Whether a process has the lock of a file."""
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Callable[[str], Process]]:
    """Return a function that starts a process that takes its turn `alone` or `parallel` to others."""
    for name in ("gate", "work"):
        (tmp_path / name).touch()
    started: list[Process] = []

    def start(how: str) -> Process:
        started.append(Process(how, tmp_path))
        return started[-1]

    yield start
    for each in started:
        each.process.kill()
        each.process.communicate()


def test_a_test_that_runs_alone_waits_for_all_and_all_for_it(process: Callable[[str], Process], tmp_path: Path) -> None:
    """Later processes run after it, even if they could run in parallel with those it waits for."""
    one, two = process("parallel"), process("parallel")
    assert one.said(60) == two.said(60) == b"in\n"
    alone = process("alone")
    while not is_held(tmp_path / "gate"):
        assert not alone.is_in
    late = process("parallel")
    one.end()
    assert not alone.is_in
    assert not late.is_in
    two.end()
    assert alone.said(60) == b"in\n"
    assert not late.is_in
    alone.end()
    assert late.said(60) == b"in\n"
