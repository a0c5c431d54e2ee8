import asyncio

import pytest

from orchestrator.backends.shielded import shielded


async def test_gives_what_the_work_gives() -> None:
    """Undisturbed it is a plain await."""
    async with asyncio.timeout(5):
        assert await shielded(asyncio.sleep(0, "done")) == "done"


async def test_a_cancellation_waits_for_the_work() -> None:
    """However often it is cancelled, the work ends first, then the cancellation is raised."""
    begun, go = asyncio.Event(), asyncio.Event()
    ended: list[str] = []

    async def work() -> None:
        begun.set()
        await go.wait()
        ended.append("work")

    async def caller() -> None:
        try:
            await shielded(work())
        finally:
            ended.append("caller")

    async with asyncio.timeout(5):
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(caller())
            await begun.wait()
            for _ in range(3):
                task.cancel()
                await asyncio.sleep(0)
            go.set()
    assert (task.cancelled(), ended) == (True, ["work", "caller"])


async def test_a_failure_is_raised() -> None:
    """The work's own error comes out as it is."""

    async def work() -> None:
        raise ValueError("no")  # noqa: EM101 # the shortest failure there is

    with pytest.raises(ValueError, match="no"):
        await shielded(work())
