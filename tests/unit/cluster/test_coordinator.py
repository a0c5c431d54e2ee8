"""What a coordinator does at SIGTERM."""

import asyncio
import os
import signal

from orchestrator.cluster.coordinator import run_at_sigterm


async def test_the_first_sigterm_counts_and_its_work_ends_with_the_block() -> None:
    """The second signal starts nothing, and the work has ended when the block is left."""
    seen: list[str] = []
    began = asyncio.Event()

    async def stop() -> None:
        seen.append("began")
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            seen.append("ended")

    async with asyncio.timeout(10), run_at_sigterm(stop):
        os.kill(os.getpid(), signal.SIGTERM)
        await began.wait()
        os.kill(os.getpid(), signal.SIGTERM)
        for _ in range(10):
            # Each turn of the event loop runs the handlers of signals that came before.
            await asyncio.sleep(0)
    assert seen == ["began", "ended"]
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


async def test_without_a_signal_nothing_is_stopped() -> None:
    """The block ends as it would without a handler."""
    seen: list[str] = []

    async def stop() -> None:
        seen.append("began")

    async with run_at_sigterm(stop):
        await asyncio.sleep(0)
    assert seen == []
