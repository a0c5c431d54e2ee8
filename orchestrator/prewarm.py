"""How many Sandboxes to have warm, purely."""

from orchestrator.wire.expert import Expert

SETTLED_SECONDS = 0.1
"""How long a model call must have lasted before Sandboxes are warmed for what it may reply.

Starting one slows a hand-over beside it from 0.9 to 15.7 ms at p95, and a call that is answered at once needs none."""

_MOST = 9
# Each unused one costs 45 MB, and half a core-second to start.


def at_start(coordinator: Expert, cores: int, wish: int | None) -> int:
    """How many to launch once the coordinator's own is up; `wish` is `--prewarm`, None for auto."""
    if wish is not None:
        return wish
    return min(cores, 2) if coordinator.delegates else 0


def while_generating(expert: Expert, fan_out: int, wish: int | None) -> int:
    """How many should be unused while `expert` waits for its model.

    One reply may call as many delegates as one did before in this job, and afterwards the Expert goes on in a Sandbox
    of its own.
    """
    if not expert.delegates or wish == 0:
        return 0
    return min(fan_out + 1, _MOST) if wish is None else wish
