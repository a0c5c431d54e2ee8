"""Prepare a Sandbox while it waits for its Run, so that a handover takes milliseconds."""

import asyncio
import gc
from collections.abc import Sequence
from importlib import import_module

from orchestrator.wire.skill import SkillTransport

# In the order of need, in slices: a Run that arrives early waits for one slice at most.
_NEEDED = (
    "orchestrator.runtime.confinement",
    "orchestrator.runtime.skills.builtin",
    "orchestrator.runtime.decide",
    "orchestrator.runtime.loop",
)


async def warm_up(transports: Sequence[SkillTransport] = ()) -> None:
    """Import what every Run needs, in slices, and the modules of these skill transports."""
    for module in (*_NEEDED, *(f"orchestrator.runtime.skills.{transport}" for transport in transports)):
        await asyncio.sleep(0)
        import_module(module)
    # Imported objects live as long as the process.
    gc.freeze()
