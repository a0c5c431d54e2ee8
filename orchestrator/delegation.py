"""Delegation, purely: the Runs that a stopped coordinator asks for, and the Run that their results make.

Spec 5.9 and 5.10, as one rule: a single delegation is a parallel one of length one, a nested one is recursion.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchestrator.wire.checkpoint import Checkpoint, DelegatedBy, DelegateTo, Status
from orchestrator.wire.expert import Expert
from orchestrator.wire.identity import identify
from orchestrator.wire.line import shortened
from orchestrator.wire.message import ExpertMessage, TextPart, ToolResult
from orchestrator.wire.usage import Usage

MAX_DEPTH = 8
"""How deep delegates may delegate; the coordinator is at depth 0."""

MAX_FAN_OUT = 32
"""How many delegates one reply may call."""

MAX_RUNS = 10_000
"""How many Runs delegates may begin in one job: by depth and fan-out alone there could be more than anybody can pay."""

RESULT_CHARACTERS = 1024 * 1024
"""What a coordinator is told of a delegate's last words: those of all delegates of one reply fit its next Run."""


@dataclass(frozen=True, slots=True)
class Child:
    """One call to a delegate: the checkpoint its Run starts from, or the sentence that says why there is no Run."""

    call: DelegateTo
    start: Checkpoint | None = None
    refusal: str | None = None


@dataclass(frozen=True, slots=True)
class Ending:
    """How an Expert's work ended: its last checkpoint, or a sentence where the platform or the job kept it from one."""

    call: DelegateTo
    checkpoint: Checkpoint | None = None
    failure: str | None = None


def children(parent: Checkpoint, experts: Mapping[str, Expert], depth: int) -> tuple[Child, ...]:
    """Make a Child of each call that `parent` stopped for, in the order of the calls; `depth` is the parent's."""
    return tuple(_child(parent, call, experts, depth, ordinal) for ordinal, call in enumerate(parent.delegate_to or ()))


def _child(parent: Checkpoint, call: DelegateTo, experts: Mapping[str, Expert], depth: int, ordinal: int) -> Child:
    expert = experts.get(call.expert.key)
    if expert is None:
        return Child(call, refusal=f"there is no Expert {call.expert.key!r}")
    if depth >= MAX_DEPTH:
        return Child(call, refusal=f"delegation is deeper than {MAX_DEPTH} levels; do the work without delegating")
    if ordinal >= MAX_FAN_OUT:
        return Child(call, refusal=f"one reply may call at most {MAX_FAN_OUT} delegates; call this one again later")
    run_id = delegated_run(parent.run_id, call.tool_call_id)
    start = Checkpoint(
        id=identify(run_id, "start"),
        job_id=parent.job_id,
        run_id=run_id,
        status=Status.INIT,
        step_number=parent.step_number + 1,
        messages=(),
        expert=expert.identity,
        delegated_by=DelegatedBy(
            expert=parent.expert,
            tool_call_id=call.tool_call_id,
            tool_name=call.tool_name,
            checkpoint_id=parent.id,
            run_id=parent.run_id,
        ),
        usage=Usage(),
    )
    return Child(call, start=start)


def resume(parent: Checkpoint, endings: Sequence[Ending]) -> Checkpoint:
    """Make the checkpoint from which the coordinator goes on: results in call order, steps and usage joined."""
    reached = [ending.checkpoint for ending in endings if ending.checkpoint is not None]
    answered = {ending.call.tool_call_id for ending in endings}
    pending = tuple(call for call in parent.pending_tool_calls or () if call.id not in answered)
    run_id = resumed_run(parent.run_id)
    return parent.with_(
        id=identify(run_id, "start"),
        run_id=run_id,
        step_number=max([parent.step_number, *(child.step_number for child in reached)]) + 1,
        usage=sum((child.usage for child in reached), parent.usage),
        delegate_to=None,
        pending_tool_calls=pending or None,
        partial_tool_results=(*(parent.partial_tool_results or ()), *(result(ending) for ending in endings)),
    )


def delegated_run(parent_run_id: str, tool_call_id: str) -> str:
    """The id of the Run that a call to a delegate begins."""
    return identify(parent_run_id, "delegate", tool_call_id)


def resumed_run(run_id: str) -> str:
    """The id of the Run in which a coordinator goes on after the Run that stopped to delegate."""
    return identify(run_id, "resume")


def result(ending: Ending) -> ToolResult:
    """Say how a delegate ended, as the coordinator's tool result: its text, or an error the coordinator can act on."""
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
    """Read the Expert's last words: "" if it said nothing, None if the last message is not the Expert's."""
    last = checkpoint.messages[-1] if checkpoint.messages else None
    if not isinstance(last, ExpertMessage):
        return None
    return next((part.text for part in last.contents if isinstance(part, TextPart)), "")
