"""Events written to the spool and to stdout."""

import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.runtime.emit import Emitter, SpoolFullError, StdoutCopy
from orchestrator.wire.event import SkillDisconnected, SkillStderr, StartGeneration
from orchestrator.wire.run import Grant
from tests.support.scripted_host import a_run

F_SETPIPE_SZ = 1031


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe with room for one page."""
    read, write = os.pipe()
    fcntl.fcntl(write, F_SETPIPE_SZ, 4096)
    yield read, write
    for fd in (read, write):
        try:
            os.close(fd)
        except OSError:
            continue


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    """An empty spool, as the host creates it."""
    path = tmp_path / "events.jsonl"
    path.touch()
    return path


def test_what_all_events_have(spool: Path, pipe: tuple[int, int]) -> None:
    """Events are numbered from 1 and name their Run; those of the Expert also have its key and step."""
    read, write = pipe
    emitter = Emitter(a_run(attempt=2), spool.parent, StdoutCopy(write).write)
    emitter.emit(StartGeneration)
    emitter.step_number = 7
    emitter.emit(StartGeneration)
    emitter.emit(SkillDisconnected, skill_name="s")
    emitter.sync()
    lines = os.read(read, 9999)
    assert spool.read_bytes() == lines
    events = [json.loads(line) for line in lines.splitlines()]
    assert len({event.pop("id") for event in events}) == 3
    assert all(event.pop("timestamp") > 1e12 for event in events)
    common = {"jobId": "job", "runId": "run", "attempt": 2}
    assert events == [
        common | {"type": "startGeneration", "seq": 1, "expertKey": "worker", "stepNumber": 1},
        common | {"type": "startGeneration", "seq": 2, "expertKey": "worker", "stepNumber": 7},
        common | {"type": "skillDisconnected", "seq": 3, "skillName": "s"},
    ]


def test_a_full_pipe_never_stops_the_expert_and_never_tears_a_line(spool: Path, pipe: tuple[int, int]) -> None:
    """A slow reader gets whole lines, with gaps; the spool contains every line."""
    read, write = pipe
    emitter = Emitter(a_run(), spool.parent, StdoutCopy(write).write)
    for _ in range(20):
        emitter.emit(SkillStderr, skill_name="s", message="x" * 1000)
    got = os.read(read, 4096)
    emitter.emit(SkillStderr, skill_name="s", message="last")
    got += os.read(read, 9999)
    seen = [json.loads(line)["seq"] for line in got.splitlines()]
    assert seen == [*range(1, len(seen)), 21]
    assert len(seen) < 21
    assert [json.loads(line)["seq"] for line in spool.read_bytes().splitlines()] == list(range(1, 22))


def test_the_rest_of_a_line_goes_out_before_the_next(spool: Path, pipe: tuple[int, int]) -> None:
    """A line longer than the pipe is written in part; the rest follows once there is room."""
    read, write = pipe
    emitter = Emitter(a_run(), spool.parent, StdoutCopy(write).write)
    emitter.emit(SkillStderr, skill_name="s", message="x" * 6000)
    got = os.read(read, 4096)
    assert len(got) == 4096
    emitter.emit(SkillStderr, skill_name="s", message="next")
    got += os.read(read, 4096)
    assert got == spool.read_bytes()


def test_a_closed_pipe_is_no_matter(spool: Path, pipe: tuple[int, int]) -> None:
    """Without a reader of stdout, events still go to the spool."""
    read, write = pipe
    emitter = Emitter(a_run(), spool.parent, StdoutCopy(write).write)
    os.close(read)
    emitter.emit(StartGeneration)
    emitter.emit(StartGeneration)
    assert len(spool.read_bytes().splitlines()) == 2


def test_a_full_disk_is_reported(tmp_path: Path, pipe: tuple[int, int]) -> None:
    """A full disk is a separate error, since work that cannot be reported must stop."""
    (tmp_path / "events.jsonl").touch()
    emitter = Emitter(a_run(), tmp_path, StdoutCopy(pipe[1]).write)
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, emitter._spool_fd)  # noqa: SLF001 - the one way to a full disk without filling one
    os.close(full)
    with pytest.raises(SpoolFullError, match="full"):
        emitter.emit(StartGeneration)


def test_a_planted_link_is_not_a_spool(tmp_path: Path, pipe: tuple[int, int]) -> None:
    """A link in place of the spool is refused."""
    (tmp_path / "elsewhere").touch()
    (tmp_path / "events.jsonl").symlink_to("elsewhere")
    with pytest.raises(OSError, match="symbolic"):
        Emitter(a_run(), tmp_path, StdoutCopy(pipe[1]).write)


@pytest.mark.behaviour("G18")
def test_granted_values_are_masked_before_they_are_written(spool: Path, pipe: tuple[int, int]) -> None:
    """Values for skills and commands are masked in every form; short ones are left to the host."""
    read, write = pipe
    given = {"kit": Grant(env={"KEY": 'canary-"kit"-1234'})}
    run = a_run(grants=given, exec_grant=Grant(env={"NOTE": "canary-note-1", "PIN": "123456"}))
    emitter = Emitter(run, spool.parent, StdoutCopy(write).write)
    emitter.emit(SkillStderr, skill_name="kit", message='canary-"kit"-1234 canary-note-1 123456 ' + "x" * 10)
    lines = os.read(read, 9999)
    assert spool.read_bytes() == lines
    assert json.loads(lines)["message"] == "[masked] [masked] 123456 " + "x" * 10
