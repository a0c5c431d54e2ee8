"""Events on their way to the consumer: in the order in which they were stored, whichever task waits or leaves."""

import asyncio

from orchestrator.jobs.event_stream import JobEvents
from orchestrator.store import Recorded
from orchestrator.wire.event import StreamRunResult

MANY = 5000
PUBLISHERS = 3


async def _publish(events: JobEvents, stored: list[int]) -> None:
    while len(stored) < MANY:
        stored.append(len(stored) + 1)
        event = StreamRunResult(
            id="e", timestamp=1, job_id="j", run_id="r", position=stored[-1], expert_key="x", step_number=1, delta=""
        )
        await events.put(Recorded(event, b""))


async def test_events_come_in_the_order_of_their_positions() -> None:
    """No event overtakes another, even if several Runs wait for room."""
    events, stored, seen = JobEvents(), list[int](), list[int | None]()
    async with asyncio.TaskGroup() as tasks:
        for _ in range(PUBLISHERS):
            tasks.create_task(_publish(events, stored))
        async for recorded in events:
            seen.append(recorded.event.position)
            if len(seen) == MANY:
                events.close(None, None)
            if len(seen) % 7 == 0:
                await asyncio.sleep(0)
    assert seen == stored


async def test_stored_events_are_given_though_their_publisher_is_cancelled() -> None:
    """After a cancellation all stored events are found, also those of publishers that waited for room."""
    events, stored = JobEvents(), list[int]()
    publishers = [asyncio.create_task(_publish(events, stored)) for _ in range(PUBLISHERS)]
    await asyncio.sleep(0.05)
    assert len(stored) < MANY
    for publisher in publishers:
        publisher.cancel()
    await asyncio.wait(publishers)
    assert [recorded.event.position for recorded in events.rest()] == stored
