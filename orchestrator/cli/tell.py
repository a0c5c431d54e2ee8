"""`perstack-orch tell`: what runs in the Pod that reads a claim's records, and nobody types."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

from orchestrator.cli.signals import mortal
from orchestrator.coordination.listening import listening
from orchestrator.coordination.messages import Follow
from orchestrator.coordination.retelling import retold, written
from orchestrator.coordination.submission import RECORDS
from orchestrator.store import Store
from orchestrator.wire.job_request import CLAIM_DIRECTORY

_ALONE_SECONDS = 60.0
"""How long it waits for somebody: who made it is gone then, or may make another."""


def tell() -> int:
    """Tell the jobs on the claim to whoever connects, until nobody does any more."""
    mortal()
    asyncio.run(_tell())
    return 0


async def _tell() -> None:
    store = Store(Path(CLAIM_DIRECTORY) / RECORDS)
    here, left = 0, asyncio.Event()

    async def told(follow: Follow) -> AsyncIterator[bytes]:
        nonlocal here
        here += 1
        try:
            telling = written(follow.command, store.root) if follow.command else retold(store, follow)
            async for line in telling:
                yield line
        finally:
            here -= 1
            left.set()

    async with listening(told):
        while True:
            try:
                async with asyncio.timeout(_ALONE_SECONDS):
                    await left.wait()
                    left.clear()
            except TimeoutError:
                if not here:
                    return
