"""How many Sandboxes to have warm."""

import os
from pathlib import Path

from orchestrator.wire.expert import Expert

SETTLED_SECONDS = 0.1
"""How long a model call must have lasted before Sandboxes are warmed for what it may reply.

Starting one slows a hand-over beside it from 0.9 to 15.7 ms at p95, and a call that is answered at once needs none."""

UNUSED_SECONDS = 30.0
"""How long a Sandbox is kept that nobody is likely to use any more."""

WAIT_SECONDS = 60 * 60.0
"""How long after its launch a Sandbox may still be given a Run: its deadline is set before it has one."""

_MOST = 9
_BYTES = 45 * 1024 * 1024
_SHARE = 0.1
_PER_CORE = 4


class Budget:
    """How many warm Sandboxes the jobs that share it may have.

    Each costs 45 MB while nobody uses it, and a fifth of a core-second to start.
    """

    def __init__(self, size: int) -> None:
        self._left = size

    def take(self) -> bool:
        """Count one more, if there may be."""
        if self._left <= 0:
            return False
        self._left -= 1
        return True

    def give_back(self) -> None:
        """Count one less: it is used now, or gone."""
        self._left += 1


def size(cores: int, available: int) -> int:
    """How many warm Sandboxes a machine can afford; `available` is bytes of memory."""
    return max(1, min(_PER_CORE * cores, int(_SHARE * available) // _BYTES))


def affordable() -> Budget:
    """A budget that this machine can afford now."""
    return Budget(size(os.cpu_count() or 1, _available()))


def _available() -> int:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    values = dict(line.split(":", 1) for line in lines)
    return int(values.get("MemAvailable", "0 kB").split()[0]) * 1024


def at_start(coordinator: Expert, cores: int, wish: int | None) -> int:
    """How many to launch beside the coordinator's own; `wish` is `--prewarm`, None for auto."""
    if wish is not None:
        return wish
    return min(cores, 2) if coordinator.delegates else 0


def while_generating(expert: Expert, fan_out: int, wish: int | None) -> int:
    """How many should be unused while `expert`, or a delegate of it, waits for its model.

    One reply may call each delegate, or one of them as many times as a reply did before in this job, which is
    `fan_out`; afterwards the Expert goes on in a Sandbox of its own.
    """
    if not expert.delegates or wish == 0:
        return 0
    return min(max(fan_out, len(expert.delegates)) + 1, _MOST) if wish is None else wish
