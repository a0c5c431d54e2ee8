"""Collecting events from two paths: each once, in order, none lost."""

import asyncio
import os
import random
from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import aclosing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.events.collector import EventSequencer, collect
from orchestrator.events.spool import Spool
from orchestrator.sandbox.api import Exit, Reason
from orchestrator.wire.checkpoint import CheckpointHead, Status, Step
from orchestrator.wire.event import AnyEvent, CompleteRun, StreamRunResult
from orchestrator.wire.expert import ExpertId
from orchestrator.wire.identity import AttemptRef
from orchestrator.wire.line import EventLine, encode
from orchestrator.wire.usage import Usage
from tests.support.log_lines import collect_log

ATTEMPT = AttemptRef("job", "run", 1)
LINE = 64 * 1024
SECONDS = 10


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


async def _stream(lines: Iterable[bytes]) -> AsyncGenerator[bytes, None]:
    for line in lines:
        yield line


async def _over() -> Exit:
    return Exit(0, Reason.COMPLETED)


async def _never() -> Exit:
    await asyncio.Event().wait()
    raise AssertionError


@pytest.fixture
def spool_file(tmp_path: Path) -> Iterator[tuple[Path, Spool]]:
    """A spool that a test may write to and the collector reads."""
    path = tmp_path / "events.jsonl"
    path.touch()
    fd = os.open(path, os.O_RDONLY)
    yield path, Spool(fd, LINE)
    os.close(fd)


async def _collected(lines: Iterable[bytes], spool: Spool, notes: list[str] | None = None) -> list[bytes]:
    sequence = EventSequencer(ATTEMPT)
    heard = asyncio.Event()

    async def stream() -> AsyncGenerator[bytes, None]:
        async with aclosing(_stream(lines)) as source:
            async for line in source:
                yield line
        heard.set()

    async def ended() -> Exit:
        # stdout is read to its end before its Sandbox is known to be over.
        await heard.wait()
        await asyncio.sleep(0)
        return await _over()

    with collect_log(details=notes):
        async with asyncio.timeout(SECONDS), collect(stream(), ended, spool, sequence) as collector:
            return [collected.line async for collected in collector]


async def test_whole_stdout_is_enough(spool_file: tuple[Path, Spool]) -> None:
    """Without a gap the spool is not needed."""
    lines = [_event(1), _event(2), _terminal(3)]
    assert await _collected(lines, spool_file[1]) == lines


@pytest.mark.parametrize("silent", [True, False])
async def test_what_stdout_lacks_is_found_while_the_sandbox_works(
    spool_file: tuple[Path, Spool], *, silent: bool
) -> None:
    """The spool is read whether stdout ended or only went silent, as a broken connection does."""
    path, spool = spool_file
    stdout = _silence() if silent else _stream([])
    sequence = EventSequencer(ATTEMPT)
    async with asyncio.timeout(SECONDS), collect(stdout, _never, spool, sequence) as collector:
        for number in (1, 2):
            with path.open("ab") as file:
                file.write(_event(number) + b"\n")
            assert (await anext(collector)).line == _event(number)


async def test_stopped_it_gives_what_was_spooled_until_then(spool_file: tuple[Path, Spool]) -> None:
    """It then ends even if the Sandbox still runs."""
    path, spool = spool_file
    sequence = EventSequencer(ATTEMPT)
    path.write_bytes(_event(1) + b"\n" + _event(2) + b"\n")
    async with asyncio.timeout(SECONDS), collect(_silence(), _never, spool, sequence) as collector:
        collector.stop()
        assert [collected.line async for collected in collector] == [_event(1), _event(2)]
        assert collector.exit is None


async def test_what_was_stored_before_is_not_given_again(spool_file: tuple[Path, Spool]) -> None:
    """An adopted Sandbox's log starts at its beginning; known events are skipped."""
    path, spool = spool_file
    path.write_bytes(b"".join(_event(number) + b"\n" for number in (1, 2, 3)))
    sequence = EventSequencer(ATTEMPT, expected=3)
    lines = _stream([_event(1), _event(2)])
    async with asyncio.timeout(SECONDS), collect(lines, _over, spool, sequence) as collector:
        assert [collected.line async for collected in collector] == [_event(3)]
        assert collector.exit == Exit(0, Reason.COMPLETED)


async def _silence() -> AsyncGenerator[bytes, None]:
    await asyncio.Event().wait()
    yield b""


@given(seed=st.integers(0, 2**32), count=st.integers(1, 60))
async def test_gaps_repeats_and_cuts_are_repaired(
    tmp_path_factory: pytest.TempPathFactory, seed: int, count: int
) -> None:
    """However stdout is cut, repeated or shuffled, the collected events are those of the spool."""
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
    """A forged job, run or attempt is refused and does not affect other events."""
    forged = [_event(2, job="other"), _event(2, run="other"), _event(2, attempt=2), b"hello", b"null", b"\xff\xfe"]
    notes: list[str] = []
    lines = [_event(1), *forged, _terminal(2)]
    assert await _collected(lines, spool_file[1], notes) == [_event(1), _terminal(2)]
    assert len(notes) == len(forged)


async def test_nothing_follows_the_terminal_event(spool_file: tuple[Path, Spool]) -> None:
    """Events after the terminal one are ignored."""
    assert await _collected([_event(1), _terminal(2), _event(3)], spool_file[1]) == [_event(1), _terminal(2)]


def test_a_torn_last_line_waits_for_its_newline(spool_file: tuple[Path, Spool]) -> None:
    """A reader never returns an incomplete line."""
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


def test_an_empty_spool_differs_from_one_that_is_gone(spool_file: tuple[Path, Spool]) -> None:
    """An empty spool is one without any write that is still the original file."""
    path, spool = spool_file
    assert spool.is_empty
    path.write_bytes(b"{")
    assert not spool.is_empty
    path.write_bytes(b"")
    spool.tampered = "the event spool is gone"
    assert not spool.is_empty


def test_an_endless_spool_line_is_tampered(spool_file: tuple[Path, Spool]) -> None:
    """A line beyond the limit does not fill the orchestrator's memory."""
    path, spool = spool_file
    path.write_bytes(b"x" * (8 * LINE))
    assert list(spool.lines()) == []
    assert spool.tampered is not None


def test_a_spool_beyond_its_bound_is_tampered(spool_file: tuple[Path, Spool]) -> None:
    """Lines up to the limit are read, later ones are not, and the spool counts as tampered."""
    path, whole = spool_file
    line = _event(1)
    spool = Spool(whole.fd, LINE, most_bytes=len(line) + 1)
    path.write_bytes(line + b"\n")
    assert (list(spool.lines()), spool.tampered) == ([line], None)
    with path.open("ab") as file:
        file.write(_event(2) + b"\n")
    assert list(spool.lines()) == []
    assert spool.tampered == f"the event spool is over {len(line) + 1} bytes"


async def test_a_long_spool_is_taken_some_of_it_at_a_time(
    spool_file: tuple[Path, Spool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The spool is read in parts, so it is never held in memory as a whole and other tasks keep running."""
    path, spool = spool_file
    many = [_event(seq) for seq in range(1, 5001)]
    path.write_bytes(b"\n".join(many) + b"\n")
    taken = 0

    def counted(of: Spool) -> Iterator[bytes]:
        nonlocal taken
        for line in whole(of):
            taken += 1
            yield line

    whole = Spool.lines
    monkeypatch.setattr(Spool, "lines", counted)
    turns, most = 0, 0

    async def somebody_else() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    other = asyncio.create_task(somebody_else())
    found = []
    async with collect(_stream([]), _over, spool, EventSequencer(ATTEMPT)) as collector:
        async for collected in collector:
            found.append(collected.line)
            most = max(most, taken - len(found))
    other.cancel()
    assert found == many
    assert most <= 256
    assert turns >= 5000 / 256


def test_a_line_longer_than_what_is_read_at_once_is_whole(spool_file: tuple[Path, Spool]) -> None:
    """A line is whole however reading or its writer cut it."""
    path, whole = spool_file
    spool = Spool(whole.fd, 1 << 22)
    path.write_bytes(b"a\n" + b"x" * (1 << 20))
    assert list(spool.lines()) == [b"a"]
    with path.open("ab") as file:
        file.write(b"y" * (1 << 20) + b"\nb\n\nc")
    assert list(spool.lines()) == [b"x" * (1 << 20) + b"y" * (1 << 20), b"b", b""]
    assert spool.tampered is None


def test_collected_made_here_reads_back() -> None:
    """An event of the host has the same line as one from a container."""
    event: AnyEvent = StreamRunResult(
        id="e", timestamp=1, job_id="job", run_id="run", expert_key="x", step_number=1, delta="d"
    )
    assert isinstance(event, StreamRunResult)
    assert EventLine.from_event(event).line == encode(event)[:-1]
