"""Terminal events that the host tells, because the Sandbox did not live to."""

from typing import Any

from orchestrator.delegation import last_text
from orchestrator.wire.checkpoint import Checkpoint, RunError, Status, Step
from orchestrator.wire.event import TerminalEvent
from orchestrator.wire.identity import identify
from orchestrator.wire.run import Run
from orchestrator.wire.state_event import (
    CompleteRun,
    StopRunByDelegate,
    StopRunByError,
    StopRunByExceededMaxSteps,
    StopRunByInteractiveTool,
)
from orchestrator.wire.usage import Usage

_SILENT = RunError(name="Unknown", message="the Expert stopped by an error that it did not tell")


def terminal_event(run: Run, checkpoint: Checkpoint, now: int) -> TerminalEvent:
    """The terminal event of a Run whose last checkpoint is `checkpoint`; `now` is Unix milliseconds.

    It carries no step: what happened in it is in the events before.
    """
    common: dict[str, Any] = {
        "id": identify(run.run_id, run.attempt, "told by the host"),
        "timestamp": now,
        "job_id": run.job_id,
        "run_id": run.run_id,
        "attempt": run.attempt,
        "expert_key": run.expert.key,
        "step_number": checkpoint.step_number,
        "checkpoint": checkpoint.head,
        "step": Step(step_number=checkpoint.step_number, started_at=now, finished_at=now),
    }
    match checkpoint.status:
        case Status.COMPLETED:
            return CompleteRun(**common, text=last_text(checkpoint) or "", usage=Usage())
        case Status.STOPPED_BY_DELEGATE:
            return StopRunByDelegate(**common)
        case Status.STOPPED_BY_INTERACTIVE_TOOL:
            return StopRunByInteractiveTool(**common)
        case Status.STOPPED_BY_EXCEEDED_MAX_STEPS:
            return StopRunByExceededMaxSteps(**common)
        case _:
            return StopRunByError(**common, error=checkpoint.error or _SILENT)
