"""What a Sandbox gets ready while it waits for its Run, so that a hand-over costs milliseconds."""

import asyncio
import gc
from collections.abc import Sequence
from importlib import import_module

from orchestrator.wire.skill import SkillWay

# In the order of need, in slices: a Run that comes early waits for one of them at most.
_NEEDED = (
    "orchestrator.runtime.confine",
    "orchestrator.runtime.skills.builtin",
    "orchestrator.runtime.decide",
    "orchestrator.runtime.loop",
)


async def warm_up(ways: Sequence[SkillWay] = ()) -> None:
    """Import what every Run needs, in slices, and what speaks to skills in these `ways`."""
    for module in (*_NEEDED, *(f"orchestrator.runtime.skills.{way}" for way in ways)):
        await asyncio.sleep(0)
        import_module(module)
    # What was imported lives as long as the process.
    gc.freeze()
