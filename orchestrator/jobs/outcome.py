"""How a Run and a job ended; pure. An Expert that fails is a value."""

from dataclasses import dataclass
from typing import Any

from msgspec.structs import asdict

from orchestrator.jobs.delegation import last_text
from orchestrator.jobs.receipt import Receipt
from orchestrator.sandbox.api import Exit, Reason
from orchestrator.wire.checkpoint import Checkpoint, RunError, Status, Step
from orchestrator.wire.conversation import append_user_text
from orchestrator.wire.event import (
    CompleteRun,
    StopRunByDelegate,
    StopRunByError,
    StopRunByExceededMaxSteps,
    StopRunByInteractiveTool,
    TerminalEvent,
)
from orchestrator.wire.job_record import JobStatus
from orchestrator.wire.run import ExitCode, Run
from orchestrator.wire.usage import Usage

_STATUS = {
    Status.COMPLETED: JobStatus.COMPLETED,
    Status.STOPPED_BY_EXCEEDED_MAX_STEPS: JobStatus.STOPPED_BY_MAX_STEPS,
    Status.STOPPED_BY_INTERACTIVE_TOOL: JobStatus.STOPPED_BY_INTERACTIVE_TOOL,
    Status.STOPPED_BY_ERROR: JobStatus.STOPPED_BY_ERROR,
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a job ended. `text` is the coordinator Expert's result; `error` is the reason if it has none."""

    status: JobStatus
    text: str | None
    error: str | None
    receipt: Receipt


@dataclass(frozen=True, slots=True)
class RetryRun:
    """The Run may start a new attempt; `error` is why this one ended, in case no attempt is left."""

    error: RunError


@dataclass(frozen=True, slots=True)
class FailedRun:
    """The Run ends in error without an event from its Sandbox."""

    error: RunError


def job_status(checkpoint: Checkpoint) -> JobStatus:
    """Return the status of a job whose coordinator Expert stopped at `checkpoint`."""
    return _STATUS.get(checkpoint.status, JobStatus.STOPPED_BY_ERROR)


def conclude(ended: Exit, violation: str | None, acknowledged: Checkpoint | None) -> Checkpoint | RetryRun | FailedRun:
    """Decide about a Sandbox that ended without a committed terminal event (docs/reference/reliability.md#verdicts).

    One that handed over its last checkpoint has done its work; only the event about it is missing. One that was lost,
    evicted or cut off may try again; `violation` is the rule that its link or its spool broke, if any.
    """
    if acknowledged is not None and acknowledged.is_stopped:
        return acknowledged
    if violation is not None:
        return FailedRun(RunError(name="WireError", message=f"the Sandbox broke a rule and was cut off: {violation}"))
    error = RunError(name=_error_name(ended), message=_sentence(ended))
    recoverable = ended.reason in {Reason.LOST, Reason.EVICTED} or (
        # Stopped, but not by us: its engine was shut down, or a user stopped it.
        ended.reason is Reason.ERROR and ended.code in {ExitCode.BROKER_GONE, ExitCode.STOPPED}
    )
    return RetryRun(error) if recoverable else FailedRun(error)


def conclude_timed_out(seconds: float, acknowledged: Checkpoint | None) -> Checkpoint | RetryRun | FailedRun:
    """Decide about a Run that took longer than `seconds`."""
    if acknowledged is not None and acknowledged.is_stopped:
        return acknowledged
    return FailedRun(RunError(name="Deadline", message=f"the Run reached its limit of {seconds:g} s"))


def give_up(run: Run, acknowledged: Checkpoint | None, error: RunError) -> Checkpoint:
    """Return the checkpoint of a Run that the platform had to end, after `acknowledged` if it has one.

    Before the first checkpoint only the host knows the user's query; it stays in the conversation for a later resume.
    """
    start = run.checkpoint if acknowledged is None else acknowledged
    if acknowledged is None and run.query is not None and run.query.strip():
        start = append_user_text(start, run.query)
    return start.with_(
        id=run.attempt_ref.identify("broken"),
        status=Status.STOPPED_BY_ERROR,
        error=error,
        delegate_to=None,
    )


def is_committed(event: TerminalEvent, acknowledged: Checkpoint | None) -> bool:
    """Whether the checkpoint of a terminal event was handed over before the event, as it must be."""
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
    reason = f": {ended.last_line}" if ended.last_line else ""
    return f"{what}{code}{reason}"


_NO_REASON = RunError(name="Unknown", message="the Expert stopped by an error without a reason")


def synthetic_terminal_event(run: Run, checkpoint: Checkpoint, now: int) -> TerminalEvent:
    """Return the terminal event of a Run whose last checkpoint is `checkpoint`; `now` is Unix milliseconds.

    It has an empty step: the earlier events have its content.
    """
    common: dict[str, Any] = {
        **asdict(run.attempt_ref),
        "id": run.attempt_ref.identify("told by the host"),
        "timestamp": now,
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
            return StopRunByError(**common, error=checkpoint.error or _NO_REASON)
