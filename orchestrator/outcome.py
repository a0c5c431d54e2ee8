"""How a Run and a job ended, purely (design: an Expert that fails is a value)."""

from dataclasses import dataclass

from orchestrator.receipt import Receipt
from orchestrator.sandbox import Exit, Reason
from orchestrator.wire.checkpoint import Checkpoint, RunError, Status
from orchestrator.wire.event import TerminalEvent
from orchestrator.wire.identity import identify
from orchestrator.wire.job import JobStatus

BROKER_GONE = 75
"""The runtime's exit code when it could not reach its broker for its whole patience (EX_TEMPFAIL)."""

MAX_ATTEMPTS = 3
"""A Run whose Sandbox was lost begins anew at most twice."""

_STATUS = {
    Status.COMPLETED: JobStatus.COMPLETED,
    Status.STOPPED_BY_EXCEEDED_MAX_STEPS: JobStatus.STOPPED_BY_MAX_STEPS,
    Status.STOPPED_BY_INTERACTIVE_TOOL: JobStatus.STOPPED_BY_INTERACTIVE_TOOL,
    Status.STOPPED_BY_ERROR: JobStatus.STOPPED_BY_ERROR,
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a job ended. `text` is the coordinator's result, `error` a sentence where there is none."""

    status: JobStatus
    text: str | None
    error: str | None
    receipt: Receipt


@dataclass(frozen=True, slots=True)
class Again:
    """The Run begins a new attempt."""


@dataclass(frozen=True, slots=True)
class Broken:
    """The Run ends in error without having said so itself."""

    error: RunError


def job_status(checkpoint: Checkpoint) -> JobStatus:
    """The status of a job whose coordinator stopped at `checkpoint`."""
    return _STATUS.get(checkpoint.status, JobStatus.STOPPED_BY_ERROR)


def conclude(ended: Exit, attempt: int, violation: str | None) -> Again | Broken:
    """Decide about a Sandbox that ended without a committed terminal event (reliability 3.4).

    A Sandbox that was lost, evicted or cut off may try again; `violation` is the rule that its link broke, if any.
    """
    if violation is not None:
        return Broken(RunError(name="WireError", message=f"the Sandbox broke a rule and was cut off: {violation}"))
    recoverable = ended.reason in {Reason.LOST, Reason.EVICTED} or ended.code == BROKER_GONE
    if recoverable and attempt < MAX_ATTEMPTS:
        return Again()
    return Broken(RunError(name=_error_name(ended), message=_sentence(ended)))


def broken(start: Checkpoint, error: RunError, attempt: int) -> Checkpoint:
    """The checkpoint of a Run that the platform had to end."""
    return start.with_(
        id=identify(start.run_id, attempt, "broken"),
        status=Status.STOPPED_BY_ERROR,
        error=error,
        delegate_to=None,
    )


def is_committed(event: TerminalEvent, acknowledged: Checkpoint | None) -> bool:
    """Whether the checkpoint that a terminal event names was handed over before it, as it must be."""
    return acknowledged is not None and acknowledged.id == event.checkpoint.id


def _error_name(ended: Exit) -> str:
    return {
        Reason.OUT_OF_MEMORY: "OutOfMemory",
        Reason.DEADLINE: "Deadline",
        Reason.CANCELLED: "Cancelled",
    }.get(ended.reason, "SandboxError")


def _sentence(ended: Exit) -> str:
    what = {
        Reason.OUT_OF_MEMORY: "the Sandbox ran out of memory",
        Reason.DEADLINE: "the Sandbox reached its deadline",
        Reason.CANCELLED: "the Sandbox was stopped from outside",
        Reason.LOST: "the Sandbox was lost, and so were the attempts after it",
        Reason.EVICTED: "the Sandbox was evicted, and so were the attempts after it",
    }.get(ended.reason, "the Sandbox ended without a final event")
    code = "" if ended.code is None else f" (exit code {ended.code})"
    last = ended.detail.strip().splitlines()
    return f"{what}{code}{': ' + last[-1] if last else ''}"
