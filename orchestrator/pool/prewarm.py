"""Decides how many Sandboxes to keep warm."""

import os
from pathlib import Path

from orchestrator.sandbox.api import Backend, Capacity, SizedBackend
from orchestrator.wire.expert import Expert

SETTLED_SECONDS = 0.1
"""How long a model call must have lasted before Sandboxes are warmed for its possible reply.

Starting one slows a hand-over at the same time from 0.9 to 15.7 ms at p95, and a call that is answered at once needs
none."""

UNUSED_SECONDS = 30.0
"""How long an unused Sandbox is kept that is unlikely to be used."""


_MAX_WARM = 9
_BYTES_EACH = 45 * 1024 * 1024
_MEMORY_SHARE = 0.1
_PER_CORE = 4


class WarmLimit:
    """How many warm Sandboxes the jobs that share it may have.

    Each costs 45 MB while unused, and a fifth of a core-second to start.
    """

    def __init__(self, size: int) -> None:
        self._left = size

    def take(self) -> bool:
        """Count one more, if the limit allows it."""
        if self._left <= 0:
            return False
        self._left -= 1
        return True

    def give_back(self) -> None:
        """Count one less: it is now used, or gone."""
        self._left += 1


def size(cores: int, available: int) -> int:
    """Return how many warm Sandboxes a machine can afford; `available` is bytes of memory."""
    return max(1, min(_PER_CORE * cores, int(_MEMORY_SHARE * available) // _BYTES_EACH))


async def capacity_of(backend: Backend) -> Capacity:
    """Return the cores and the free memory of the machine that Sandboxes of a backend run on.

    Of another machine only the whole memory is known; half of it counts as free.
    """
    other = await backend.capacity() if isinstance(backend, SizedBackend) else None
    if other is None:
        return Capacity(os.cpu_count() or 1, _available())
    return Capacity(other.cores or 1, other.memory // 2)


def affordable(capacity: Capacity) -> WarmLimit:
    """The limit that a machine can afford now."""
    return WarmLimit(size(capacity.cores, capacity.memory))


def _available() -> int:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    values = dict(line.split(":", 1) for line in lines)
    return int(values.get("MemAvailable", "0 kB").split()[0]) * 1024


def at_start(coordinator: Expert, cores: int, requested: int | None) -> int:
    """Return how many to launch in addition to the coordinator Expert's own.

    `requested` is `--prewarm`, None for auto.
    """
    if requested is not None:
        return requested
    return min(cores, 2) if coordinator.delegates else 0


def while_generating(expert: Expert, fan_out: int, requested: int | None) -> int:
    """Return how many should be unused while `expert`, or one of its delegates, waits for its model.

    One reply may call each delegate once, or one of them as often as an earlier reply in this job did, which is
    `fan_out`; afterwards the Expert continues in its own Sandbox.
    """
    if not expert.delegates or requested == 0:
        return 0
    return min(max(fan_out, len(expert.delegates)) + 1, _MAX_WARM) if requested is None else requested
