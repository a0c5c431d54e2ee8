"""What a run of the tests left is found, and nothing of other runs."""

import os
import subprocess
import sys
from pathlib import Path

from tests.support.traces import outside_directory, traces


def gone() -> int:
    """The number of a process that has ended."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    return ended.pid


def test_a_process_is_known_by_the_directory_of_its_run(tmp_path: Path) -> None:
    """In its command or its environment; a process of another run does not count."""
    program = "print(flush=True); input()"
    by_command = subprocess.Popen(
        [sys.executable, "-c", program, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    by_environment = subprocess.Popen(
        [sys.executable, "-c", program], env={"X": f"{tmp_path}/x"}, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        for process in (by_command, by_environment):
            assert process.stdout is not None
            assert process.stdout.readline() == b"\n"
        found = {trace.partition(":")[0] for trace in traces(tmp_path)}
        assert {f"process {by_command.pid}", f"process {by_environment.pid}"} <= found
        assert not [trace for trace in traces(tmp_path / "other") if trace.startswith("process")]
    finally:
        for process in (by_command, by_environment):
            process.communicate(b"\n")
    assert not [trace for trace in traces(tmp_path) if trace.startswith("process")]


def test_a_directory_outside_is_left_once_its_process_is_gone() -> None:
    """While that runs, the directory is in use."""
    with outside_directory() as used:
        assert f"directory {used}" not in traces()
        left = used.with_name(used.name.replace(str(os.getpid()), str(gone())))
        left.mkdir()
        try:
            assert f"directory {left}" in traces()
        finally:
            left.rmdir()
    assert not used.exists()
