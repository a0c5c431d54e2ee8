"""How far each Run had come; pure."""

from collections.abc import Iterable

from orchestrator.wire.checkpoint import Checkpoint


def last_of_each_run(checkpoints: Iterable[Checkpoint]) -> dict[str, Checkpoint]:
    """Find the last checkpoint of each Run, by its id."""
    last: dict[str, Checkpoint] = {}
    for checkpoint in checkpoints:
        other = last.get(checkpoint.run_id)
        if other is None or _reached(checkpoint) > _reached(other):
            last[checkpoint.run_id] = checkpoint
    return last


def _reached(checkpoint: Checkpoint) -> tuple[int, bool]:
    """Of two checkpoints of one step the one that ends the Run is later."""
    return checkpoint.step_number, checkpoint.is_stopped
