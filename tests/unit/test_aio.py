import asyncio
import threading
from functools import partial

import pytest

from orchestrator.aio import in_daemon_thread, shielded


async def test_gives_what_the_work_gives() -> None:
    """Without cancellation it is a plain await."""
    async with asyncio.timeout(5):
        assert await shielded(asyncio.sleep(0, "done")) == "done"


async def test_a_cancellation_waits_for_the_work() -> None:
    """However often the caller is cancelled, the work ends first; then the cancellation is raised."""
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
    """The work's own error is raised unchanged."""

    async def work() -> None:
        raise ValueError("no")  # noqa: EM101 # the shortest failure there is

    with pytest.raises(ValueError, match="no"):
        await shielded(work())


async def test_a_thread_that_hangs_is_left_behind() -> None:
    """A caller that gives up continues at once; results and errors of others arrive."""
    hanging = threading.Event()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await in_daemon_thread(hanging.wait)
    hanging.set()
    assert await in_daemon_thread(lambda: 7) == 7
    with pytest.raises(OSError, match="broken"):
        await in_daemon_thread(partial(fail, "broken"))


def fail(text: str) -> None:
    """Fail as blocking work does."""
    raise OSError(text)
