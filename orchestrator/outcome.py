"""How a Run and a job ended, purely (design: an Expert that fails is a value)."""

from dataclasses import dataclass

from orchestrator.receipt import Receipt
from orchestrator.sandbox import Exit, Reason
from orchestrator.wire.checkpoint import Checkpoint, RunError, Status
from orchestrator.wire.conversation import hear
from orchestrator.wire.event import TerminalEvent
from orchestrator.wire.exit_code import ExitCode
from orchestrator.wire.identity import identify
from orchestrator.wire.job import JobStatus
from orchestrator.wire.run import Run

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
    """The Run may begin a new attempt; `error` is why this one ended, for where it may not."""

    error: RunError


@dataclass(frozen=True, slots=True)
class Broken:
    """The Run ends in error without having said so itself."""

    error: RunError


def job_status(checkpoint: Checkpoint) -> JobStatus:
    """The status of a job whose coordinator stopped at `checkpoint`."""
    return _STATUS.get(checkpoint.status, JobStatus.STOPPED_BY_ERROR)


def conclude(ended: Exit, violation: str | None, acknowledged: Checkpoint | None) -> Checkpoint | Again | Broken:
    """Decide about a Sandbox that ended without a committed terminal event (reliability 3.4).

    One that had handed over its last checkpoint has done its work, and only the event about it is missing. One that was
    lost, evicted or cut off may try again; `violation` is the rule that its link or its spool broke, if any.
    """
    if acknowledged is not None and acknowledged.is_stopped:
        return acknowledged
    if violation is not None:
        return Broken(RunError(name="WireError", message=f"the Sandbox broke a rule and was cut off: {violation}"))
    error = RunError(name=_error_name(ended), message=_sentence(ended))
    recoverable = ended.reason in {Reason.LOST, Reason.EVICTED} or (
        # Stopped, but not by us: its engine was shut down, or somebody meant well.
        ended.reason is Reason.ERROR and ended.code in {ExitCode.BROKER_GONE, ExitCode.STOPPED}
    )
    return Again(error) if recoverable else Broken(error)


def conclude_late(seconds: float, acknowledged: Checkpoint | None) -> Checkpoint | Again | Broken:
    """Decide about a Run that took longer than `seconds`."""
    if acknowledged is not None and acknowledged.is_stopped:
        return acknowledged
    return Broken(RunError(name="Deadline", message=f"the Run reached its limit of {seconds:g} s"))


def broken(run: Run, acknowledged: Checkpoint | None, error: RunError) -> Checkpoint:
    """The checkpoint of a Run that the platform had to end, after `acknowledged` if it had come to one.

    Before that only the host knows the user's words; they stay in the conversation, for who goes on with it.
    """
    start = run.checkpoint if acknowledged is None else acknowledged
    if acknowledged is None and run.query is not None and run.query.strip():
        start = hear(start, run.query)
    return start.with_(
        id=identify(run.run_id, run.attempt, "broken"),
        status=Status.STOPPED_BY_ERROR,
        error=error,
        delegate_to=None,
    )


def is_committed(event: TerminalEvent, acknowledged: Checkpoint | None) -> bool:
    """Whether the checkpoint that a terminal event names was handed over before it, as it must be."""
    if acknowledged is None or not acknowledged.is_stopped:
        return False
    return (acknowledged.id, acknowledged.status) == (event.checkpoint.id, event.checkpoint.status)


def _error_name(ended: Exit) -> str:
    by_reason = {
        Reason.OUT_OF_MEMORY: "OutOfMemory",
        Reason.DEADLINE: "Deadline",
        Reason.CANCELLED: "Cancelled",
    }
    by_code: dict[int, str] = {ExitCode.SPOOL_FULL: "DiskFull", ExitCode.DEADLINE: "Deadline"}
    return by_reason.get(ended.reason) or by_code.get(ended.code or 0, "SandboxError")


def _sentence(ended: Exit) -> str:
    what = {
        Reason.OUT_OF_MEMORY: "the Sandbox ran out of memory",
        Reason.DEADLINE: "the Sandbox reached its deadline",
        Reason.CANCELLED: "the Sandbox was stopped from outside",
        Reason.LOST: "the Sandbox was lost, and so were those before it",
        Reason.EVICTED: "the Sandbox was evicted, and those before it were lost",
    }.get(ended.reason, "the Sandbox ended without a final event")
    code = "" if ended.code is None else f" (exit code {ended.code})"
    said = f": {ended.last_words}" if ended.last_words else ""
    return f"{what}{code}{said}"
