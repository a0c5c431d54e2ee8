"""What watchers of a job receive, from any position and at any time."""

import asyncio
from collections.abc import Iterator, Sequence

import pytest

from orchestrator.cluster import broadcast as module
from orchestrator.cluster.broadcast import Broadcast
from orchestrator.cluster.protocol import JobEnded, JobStarted, LogMessage, read_message
from orchestrator.store import Recorded
from orchestrator.wire.event import Event, ProxyAccess

BEGAN = JobStarted(after=2, expert_key="one", max_steps=5)
DONE = JobEnded(code=0)


def recorded(position: int) -> Recorded:
    """Return an event at a position."""
    event: Event = ProxyAccess(
        id=f"event{position}",
        timestamp=position,
        job_id="j",
        run_id="r",
        action="allowed",
        skill_name="s",
        domain="d",
        port=443,
    ).with_(position=position)
    return Recorded(event, event.to_json())


def broadcast_of(stored: Sequence[int]) -> Broadcast:
    """Return a broadcast whose records have events at these positions."""

    def read() -> Iterator[Recorded]:
        return (recorded(position) for position in stored)

    return Broadcast(read, BEGAN)


async def received(broadcast: Broadcast, after: int | None, last_log_number: int = 0) -> list[object]:
    """Return all that a watcher receives, with events as their positions."""
    found: list[object] = []
    async with asyncio.timeout(5):
        async for line in broadcast.lines(after, last_log_number):
            message = read_message(line.removesuffix(b"\n"))
            found.append(_position(message) if isinstance(message, bytes) else message)
    return found


def _position(line: bytes) -> int:
    return next(number for number in range(10_000) if recorded(number).line == line)


async def test_from_where_the_coordinator_began_if_nothing_is_named() -> None:
    """Events of earlier coordinators are not sent."""
    made = broadcast_of((1, 2, 3, 4))
    made.end(DONE)
    assert await received(made, None) == [BEGAN, 3, 4, DONE]
    assert await received(made, 0) == [BEGAN, 1, 2, 3, 4, DONE]
    assert await received(made, 4) == [BEGAN, DONE]


async def test_old_events_come_from_the_records_and_new_ones_from_memory() -> None:
    """Each event is sent once, also if memory and records have it."""
    made = broadcast_of((1, 2, 3, 4, 5))
    for position in (4, 5):
        made.event(recorded(position))
    made.end(DONE)
    assert await received(made, 0) == [BEGAN, 1, 2, 3, 4, 5, DONE]
    assert await received(made, 3) == [BEGAN, 4, 5, DONE]


async def test_who_is_slower_than_the_memory_reads_the_records(monkeypatch: pytest.MonkeyPatch) -> None:
    """A watcher that is slower than the memory reads the records and misses nothing."""
    monkeypatch.setattr(module, "_RECENT", 2)
    stored = [1, 2]
    made = Broadcast(lambda: iter([recorded(position) for position in stored]), BEGAN)
    told = made.lines(0, 0)
    for _ in range(3):
        await anext(told)
    for position in range(3, 9):
        stored.append(position)
        made.event(recorded(position))
    made.end(DONE)
    rest = [read_message(line.removesuffix(b"\n")) async for line in told]
    assert [_position(each) if isinstance(each, bytes) else each for each in rest] == [*range(3, 9), DONE]


async def test_log_messages_are_sent_once() -> None:
    """A watcher that reconnects names the last log message it has, and gets only later ones."""
    made = broadcast_of(())
    made.log("say", "first")
    made.log("note", "second")
    made.end(DONE)
    second = LogMessage(number=2, level="note", text="second")
    assert await received(made, None, last_log_number=0) == [
        BEGAN,
        LogMessage(number=1, level="say", text="first"),
        second,
        DONE,
    ]
    assert await received(made, None, last_log_number=1) == [BEGAN, second, DONE]


async def test_a_waiting_reader_gets_it_at_once() -> None:
    """A watcher that has everything gets a new event at once, and then the end."""
    made = broadcast_of(())
    hearing = asyncio.create_task(received(made, 2))
    await asyncio.sleep(0)
    made.event(recorded(3))
    await asyncio.sleep(0)
    made.end(DONE)
    assert await hearing == [BEGAN, 3, DONE]
