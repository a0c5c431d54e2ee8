"""Delegation: the Runs that a stopped Expert calls for, and the Run that continues with their results; pure.

One rule for docs/reference/perstack.md#delegation and docs/reference/perstack.md#parallel-delegation: a single
delegation is a parallel one of length one, and a nested one is recursion.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchestrator.wire.checkpoint import Checkpoint, DelegatedBy, DelegateTo, Status
from orchestrator.wire.expert import Expert
from orchestrator.wire.identity import delegated_run, identify, resumed_run
from orchestrator.wire.line import shortened
from orchestrator.wire.message import ExpertMessage, TextPart, ToolResult

MAX_DEPTH = 8
"""How deep delegates may delegate; the coordinator Expert is at depth 0."""

MAX_FAN_OUT = 32
"""How many delegates one reply may call."""

MAX_RUNS = 10_000
"""How many Runs delegates may begin in one job: depth and fan-out alone would allow more than a user can pay for."""

RESULT_CHARACTERS = 1024 * 1024
"""The most characters of a delegate's last text in its result: those of all delegates of one reply fit the next Run."""


@dataclass(frozen=True, slots=True)
class DelegateCall:
    """One call to a delegate: the checkpoint its Run starts from, or the reason why no Run starts."""

    call: DelegateTo
    start: Checkpoint | None = None
    refusal: str | None = None


@dataclass(frozen=True, slots=True)
class Ending:
    """How a delegate's work ended: its last checkpoint, or the failure that prevented one."""

    call: DelegateTo
    checkpoint: Checkpoint | None = None
    failure: str | None = None


def children(parent: Checkpoint, experts: Mapping[str, Expert], depth: int) -> tuple[DelegateCall, ...]:
    """Return a DelegateCall for each call of a delegate in `parent`, in the order of the calls; `depth` is its own."""
    return tuple(_child(parent, call, experts, depth, ordinal) for ordinal, call in enumerate(parent.delegate_to or ()))


def _child(
    parent: Checkpoint, call: DelegateTo, experts: Mapping[str, Expert], depth: int, ordinal: int
) -> DelegateCall:
    expert = experts.get(call.expert.key)
    if expert is None:
        return DelegateCall(call, refusal=f"no Expert {call.expert.key!r} exists")
    if depth >= MAX_DEPTH:
        return DelegateCall(
            call, refusal=f"delegation is deeper than {MAX_DEPTH} levels; do the work without delegating"
        )
    if ordinal >= MAX_FAN_OUT:
        return DelegateCall(
            call, refusal=f"one reply may call at most {MAX_FAN_OUT} delegates; call this one again later"
        )
    delegated_by = DelegatedBy(
        expert=parent.expert,
        tool_call_id=call.tool_call_id,
        tool_name=call.tool_name,
        checkpoint_id=parent.id,
        run_id=parent.run_id,
    )
    run_id = delegated_run(parent.run_id, call.tool_call_id)
    return DelegateCall(
        call, Checkpoint.initial(parent.job_id, run_id, expert.identity, parent.step_number + 1, delegated_by)
    )


def continue_caller(parent: Checkpoint, endings: Sequence[Ending]) -> Checkpoint:
    """Return the checkpoint from which the calling Expert continues: results in call order, steps and usage joined."""
    reached = [ending.checkpoint for ending in endings if ending.checkpoint is not None]
    answered = {ending.call.tool_call_id for ending in endings}
    pending = tuple(call for call in parent.pending_tool_calls or () if call.id not in answered)
    return parent.continued_by(
        resumed_run(parent.run_id),
        step_number=max([parent.step_number, *(child.step_number for child in reached)]) + 1,
        usage=sum((child.usage for child in reached), parent.usage),
        delegate_to=None,
        pending_tool_calls=pending or None,
        partial_tool_results=(*(parent.partial_tool_results or ()), *(result(ending) for ending in endings)),
    )


def result(ending: Ending) -> ToolResult:
    """Return a delegate's end as the calling Expert's tool result: its text, or an error that Expert can act on."""
    text, is_error = _answer(ending)
    return ToolResult(
        id=ending.call.tool_call_id,
        skill_name=f"delegate/{ending.call.expert.key}",
        tool_name=ending.call.tool_name,
        result=(TextPart(id=identify("delegate-result", ending.call.tool_call_id), text=text),),
        is_error=is_error or None,
    )


def _answer(ending: Ending) -> tuple[str, bool]:
    name = ending.call.expert.key
    checkpoint = ending.checkpoint
    if ending.failure is not None or checkpoint is None:
        return f"Delegate {name} failed: {ending.failure or 'it left nothing'}.", True
    if checkpoint.status is Status.STOPPED_BY_EXCEEDED_MAX_STEPS:
        return f"Delegate {name} did not finish: step {checkpoint.step_number} reached the job's limit of steps.", True
    if checkpoint.status is not Status.COMPLETED:
        reason = checkpoint.error.message if checkpoint.error else f"it ended as {checkpoint.status}"
        return f"Delegate {name} failed: {reason}", True
    text = last_text(checkpoint)
    if text is None:
        return f"Delegate {name} failed: its last message is not its own.", True
    return shortened(text, RESULT_CHARACTERS), False


def last_text(checkpoint: Checkpoint) -> str | None:
    """Return the Expert's last text: "" if it has none, None if the last message is not the Expert's."""
    last = checkpoint.messages[-1] if checkpoint.messages else None
    if not isinstance(last, ExpertMessage):
        return None
    return next((part.text for part in last.contents if isinstance(part, TextPart)), "")
