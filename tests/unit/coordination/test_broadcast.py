"""What watchers of a job are told, from any position and at any time."""

import asyncio
from collections.abc import Iterator, Sequence

import pytest

from orchestrator.coordination import broadcast as module
from orchestrator.coordination.broadcast import Broadcast
from orchestrator.coordination.messages import Began, Ended, Remark, read_message
from orchestrator.store import Recorded
from orchestrator.wire.event import Event
from orchestrator.wire.platform_event import ProxyAccess

BEGAN = Began(after=2, expert_key="one", max_steps=5)
DONE = Ended(code=0)


def recorded(position: int) -> Recorded:
    """An event at a position."""
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
    """One whose records have events at these positions."""

    def read() -> Iterator[Recorded]:
        return (recorded(position) for position in stored)

    return Broadcast(read, BEGAN)


async def heard(broadcast: Broadcast, after: int | None, said: int = 0) -> list[object]:
    """All that a watcher is told, events as their positions."""
    found: list[object] = []
    async with asyncio.timeout(5):
        async for line in broadcast.lines(after, said):
            message = read_message(line.removesuffix(b"\n"))
            found.append(_position(message) if isinstance(message, bytes) else message)
    return found


def _position(line: bytes) -> int:
    return next(number for number in range(10_000) if recorded(number).line == line)


async def test_from_where_the_coordinator_began_if_nothing_is_named() -> None:
    """Events of earlier coordinators are in the records, and not told."""
    made = broadcast_of((1, 2, 3, 4))
    made.end(DONE)
    assert await heard(made, None) == [BEGAN, 3, 4, DONE]
    assert await heard(made, 0) == [BEGAN, 1, 2, 3, 4, DONE]
    assert await heard(made, 4) == [BEGAN, DONE]


async def test_old_events_come_from_the_records_and_new_ones_from_memory() -> None:
    """Each once, also where both have it."""
    made = broadcast_of((1, 2, 3, 4, 5))
    for position in (4, 5):
        made.event(recorded(position))
    made.end(DONE)
    assert await heard(made, 0) == [BEGAN, 1, 2, 3, 4, 5, DONE]
    assert await heard(made, 3) == [BEGAN, 4, 5, DONE]


async def test_who_is_slower_than_the_memory_reads_the_records(monkeypatch: pytest.MonkeyPatch) -> None:
    """However few are remembered, nothing is lost between two looks."""
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


async def test_remarks_are_told_once() -> None:
    """Whoever connects again says which it has heard."""
    made = broadcast_of(())
    made.remark("say", "first")
    made.remark("note", "second")
    made.end(DONE)
    second = Remark(number=2, level="note", text="second")
    assert await heard(made, None, said=0) == [BEGAN, Remark(number=1, level="say", text="first"), second, DONE]
    assert await heard(made, None, said=1) == [BEGAN, second, DONE]


async def test_who_waits_is_told_at_once() -> None:
    """An event reaches a watcher that had heard everything, and then the end does."""
    made = broadcast_of(())
    hearing = asyncio.create_task(heard(made, 2))
    await asyncio.sleep(0)
    made.event(recorded(3))
    await asyncio.sleep(0)
    made.end(DONE)
    assert await hearing == [BEGAN, 3, DONE]
