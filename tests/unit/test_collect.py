"""Collecting events from two paths: each once, in order, none lost."""

import os
import random
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.collect import Collected, Origin, Sequence, Spool, collect, drain
from orchestrator.wire.any_event import AnyEvent
from orchestrator.wire.checkpoint import CheckpointHead, Status, Step
from orchestrator.wire.expert import ExpertId
from orchestrator.wire.line import encode
from orchestrator.wire.state_event import CompleteRun
from orchestrator.wire.stream_event import StreamRunResult
from orchestrator.wire.usage import Usage

ORIGIN = Origin("job", "run", 1)
LINE = 64 * 1024


def _event(seq: int, *, job: str = "job", run: str = "run", attempt: int = 1) -> bytes:
    event: AnyEvent = StreamRunResult(
        id=f"e{seq}",
        timestamp=seq,
        job_id=job,
        run_id=run,
        attempt=attempt,
        seq=seq,
        expert_key="x",
        step_number=1,
        delta=f"piece {seq}",
    )
    return encode(event).rstrip()


def _terminal(seq: int) -> bytes:
    head = CheckpointHead(
        id="cp",
        job_id="job",
        run_id="run",
        status=Status.COMPLETED,
        step_number=1,
        expert=ExpertId(key="x", name="x", version="1.0.0"),
        usage=Usage(),
    )
    event: AnyEvent = CompleteRun(
        id="end",
        timestamp=seq,
        job_id="job",
        run_id="run",
        attempt=1,
        seq=seq,
        expert_key="x",
        step_number=1,
        checkpoint=head,
        step=Step(step_number=1, started_at=1),
        text="done",
        usage=Usage(),
    )
    return encode(event).rstrip()


async def _stream(lines: Iterable[bytes]) -> AsyncIterator[bytes]:
    for line in lines:
        yield line


@pytest.fixture
def spool_file(tmp_path: Path) -> Iterator[tuple[Path, Spool]]:
    """A spool that a test may write to and the collector reads."""
    path = tmp_path / "events.jsonl"
    path.touch()
    fd = os.open(path, os.O_RDONLY)
    yield path, Spool(fd, LINE)
    os.close(fd)


async def _collected(lines: Iterable[bytes], spool: Spool, notes: list[str] | None = None) -> list[bytes]:
    sequence = Sequence(ORIGIN, (notes if notes is not None else []).append)
    return [collected.line async for collected in collect(_stream(lines), spool, sequence)]


async def test_whole_stdout_is_enough(spool_file: tuple[Path, Spool]) -> None:
    """Without a gap the spool is not needed."""
    lines = [_event(seq) for seq in (1, 2, 3)]
    assert await _collected(lines, spool_file[1]) == lines


@given(seed=st.integers(0, 2**32), count=st.integers(1, 60))
async def test_gaps_repeats_and_cuts_are_repaired(
    tmp_path_factory: pytest.TempPathFactory, seed: int, count: int
) -> None:
    """However stdout is cut, repeated or shuffled, what is collected is what was spooled."""
    chance = random.Random(seed)  # noqa: S311 - a seed that hypothesis can shrink
    expected = [*(_event(seq) for seq in range(1, count + 1)), _terminal(count + 1)]
    path = tmp_path_factory.mktemp("spool") / "events.jsonl"
    path.write_bytes(b"".join(line + b"\n" for line in expected))
    heard = [line for line in expected for _ in range(chance.choice((0, 1, 1, 2)))]
    heard = heard[: chance.randint(0, len(heard))]
    fd = os.open(path, os.O_RDONLY)
    try:
        assert await _collected(heard, Spool(fd, LINE)) == expected
    finally:
        os.close(fd)


async def test_events_of_others_are_refused_and_noted(spool_file: tuple[Path, Spool]) -> None:
    """A forged job, run or attempt never gets through, and does not disturb the rest."""
    forged = [_event(2, job="other"), _event(2, run="other"), _event(2, attempt=2), b"hello", b"null", b"\xff\xfe"]
    notes: list[str] = []
    lines = [_event(1), *forged, _event(2)]
    assert await _collected(lines, spool_file[1], notes) == [_event(1), _event(2)]
    assert len(notes) == len(forged)


async def test_nothing_follows_the_terminal_event(spool_file: tuple[Path, Spool]) -> None:
    """What comes after the end is not the Run's any more."""
    assert await _collected([_event(1), _terminal(2), _event(3)], spool_file[1]) == [_event(1), _terminal(2)]


def test_a_torn_last_line_waits_for_its_newline(spool_file: tuple[Path, Spool]) -> None:
    """A reader never sees half a line."""
    path, spool = spool_file
    path.write_bytes(_event(1) + b"\n" + _event(2)[:20])
    assert list(spool.lines()) == [_event(1)]
    with path.open("ab") as file:
        file.write(_event(2)[20:] + b"\n")
    assert list(spool.lines()) == [_event(2)]


def test_a_spool_that_shrinks_is_tampered(spool_file: tuple[Path, Spool]) -> None:
    """Truncating the spool is noticed."""
    path, spool = spool_file
    path.write_bytes(_event(1) + b"\n")
    assert list(spool.lines()) == [_event(1)]
    path.write_bytes(b"")
    assert list(spool.lines()) == []
    assert spool.tampered is not None
    assert "shrank" in spool.tampered


def test_an_endless_spool_line_is_tampered(spool_file: tuple[Path, Spool]) -> None:
    """A line beyond the bound does not fill the orchestrator's memory."""
    path, spool = spool_file
    path.write_bytes(b"x" * (8 * LINE))
    assert list(spool.lines()) == []
    assert spool.tampered is not None


def test_drain_gives_what_came_after_stdout_closed(spool_file: tuple[Path, Spool]) -> None:
    """Events written after stdout was closed stand in the spool and are found."""
    path, spool = spool_file
    notes: list[str] = []
    sequence = Sequence(ORIGIN, notes.append)
    path.write_bytes(_event(1) + b"\n")
    assert [collected.line for collected in drain(spool, sequence)] == [_event(1)]
    with path.open("ab") as file:
        file.write(_event(2) + b"\n")
    assert [collected.line for collected in drain(spool, sequence)] == [_event(2)]


def test_collected_made_here_reads_back() -> None:
    """An event of the host's own has the same line as one from a container."""
    event: AnyEvent = StreamRunResult(
        id="e", timestamp=1, job_id="job", run_id="run", expert_key="x", step_number=1, delta="d"
    )
    assert isinstance(event, StreamRunResult)
    assert Collected.made_here(event).line == encode(event)[:-1]
