"""What a Sandbox gets ready while it waits for its Run, so that a hand-over costs milliseconds."""

import asyncio
import gc
from importlib import import_module

# In the order of need, in slices: a Run that comes early waits for one of them at most.
_NEEDED = (
    "orchestrator.runtime.confine",
    "orchestrator.runtime.skills.builtin",
    "orchestrator.runtime.decide",
    "orchestrator.runtime.loop",
)


async def warm_up() -> None:
    """Import what every Run needs, in slices."""
    for module in _NEEDED:
        await asyncio.sleep(0)
        import_module(module)
    # What was imported lives as long as the process.
    gc.freeze()
