"""The state machine of the agent loop: the next move, given the state of a Run and the model's reply. Pure functions.

See docs/reference/perstack.md#state-events. Where docs/reference/behaviours.md promises more than upstream does, this
module keeps the promise. `tool_calls` decides what follows from tool calls.
"""

import json
from dataclasses import dataclass
from typing import Any

from orchestrator.runtime.skills import Kind, Routes
from orchestrator.runtime.turn import Phase, Transition, Turn, expert_message, stop, stop_by_error
from orchestrator.wire.checkpoint import Checkpoint, RunError, Status, Step
from orchestrator.wire.conversation import append_user_text, call_ids, error_result, next_id, tool_message, user_message
from orchestrator.wire.event import (
    CallTools,
    CompleteRun,
    ContinueToNextStep,
    FinishAllToolCalls,
    FinishToolCall,
    ResumeToolCalls,
    Retry,
    StartGeneration,
    StartRun,
    StopRunByExceededMaxSteps,
)
from orchestrator.wire.generation import Failure, FinishReason, Reply, RequestedCall
from orchestrator.wire.identity import identify
from orchestrator.wire.message import InstructionMessage, Message, TextPart, ToolCall
from orchestrator.wire.run import Run
from orchestrator.wire.usage import Usage

LONGEST_PAUSE = 30.0
"""The longest pause between two model calls in seconds, even if the API asks for more."""

UNKNOWN_SKILL = "unknown"
"""The skill name of a call to a tool that does not exist."""

_FIRST_PAUSE = 0.5
_EMPTY = "The reply held neither text nor a tool call. Call a tool, or answer with text."
_CUT_CALLS = (
    "The reply reached the output limit before the tool call was complete. Use shorter arguments or fewer calls."
)
_CUT_TEXT = "The reply reached the output limit before it was complete. Give the whole answer again, shorter."
_MALFORMED = "The tool calls need different ids, and names of 1 to 255 characters. Call the tools again."
_NAME_LENGTH = 255
_FILTERED = "the model's provider stopped the reply: its content filter matched"
_UNEXPLAINED_STOP = "the model stopped for a reason that its provider does not explain; nothing of the reply was used"


@dataclass(frozen=True, slots=True)
class ReplyProblem:
    """A reply or model call that cannot be used: an error name, and a sentence for the model."""

    name: str
    message: str
    status_code: int | None = None


def begin(run: Run, instruction: str, now: int) -> Transition:
    """Start the Run from its checkpoint; `instruction` is the system prompt, `now` Unix milliseconds.

    The system prompt is added if the conversation has none: it is new, or its Run ended before the first event.
    """
    start = run.checkpoint
    step = Step(step_number=start.step_number, started_at=now)
    if not start.messages and not (run.query or "").strip():
        error = RunError(name="EmptyQuery", message="the query is empty; state what the Expert should do")
        return stop_by_error(Turn(start, step), error, now)
    has_instruction = isinstance(next(iter(start.messages), None), InstructionMessage)
    rules = () if has_instruction else (_instruction_message(run, instruction),)
    started = start if run.query is None else append_user_text(start, run.query, ahead=len(rules))
    inputs: tuple[Message, ...] = (*rules, *started.messages[len(start.messages) :])
    proceeding = started.with_(
        status=Status.PROCEEDING,
        messages=(*rules, *started.messages),
        delegate_to=None,
        error=None,
        retry_count=None,
        context_window=run.context_window,
    )
    turn = Turn(proceeding, step.with_(input_messages=inputs))
    return Transition(Phase.PREPARING, turn, StartRun, {"initial_checkpoint": start, "input_messages": inputs})


def prepare(turn: Turn, now: int) -> Transition:
    """Continue with pending calls, else with results that the model has not seen, else call the model."""
    pending = turn.checkpoint.pending_tool_calls or ()
    partial = turn.checkpoint.partial_tool_results or ()
    if pending:
        resumed = turn.with_step(tool_results=partial, pending_tool_calls=pending, partial_tool_results=partial)
        fields = {"pending_tool_calls": pending, "partial_tool_results": partial}
        return Transition(Phase.CALLING, resumed, ResumeToolCalls, fields)
    if partial:
        message = tool_message(turn.checkpoint, partial)
        joined = turn.add(message, pending_tool_calls=None, partial_tool_results=None)
        finished = joined.with_step(tool_results=partial)
        return Transition(Phase.FINISHING, finished, FinishAllToolCalls, {"new_messages": (message,)})
    fresh = turn.with_step(started_at=now)
    return Transition(Phase.GENERATING, fresh, StartGeneration, {"messages": turn.checkpoint.messages})


def take_reply(turn: Turn, reply: Reply, routes: Routes, max_retries: int, now: int) -> Transition:
    """Process the model's reply in a step (docs/reference/perstack.md#generation)."""
    turn = _measure(turn, reply)
    reason = reply.finish_reason
    if not _are_well_formed(reply.tool_calls):
        return _retry(turn, ReplyProblem("MalformedToolCall", _MALFORMED), max_retries, now, (), usage=reply.usage)
    reply = _with_fresh_ids(reply, turn.checkpoint)
    if reply.tool_calls and reason in (FinishReason.STOP, FinishReason.TOOL_CALLS):
        return _call_tools(turn, reply, routes)
    if reply.tool_calls and reason is FinishReason.LENGTH:
        return _retry_cut_calls(turn, reply, routes, max_retries, now)
    if reply.text.strip() and reason is FinishReason.STOP:
        return complete(turn, reply, now)
    return _refuse(turn, reply, max_retries, now)


def result_messages(turn: Turn) -> tuple[Message, ...]:
    """The conversation for the Run's final result: includes the results of this step, which are not part of it yet."""
    return (*turn.checkpoint.messages, tool_message(turn.checkpoint, turn.step.tool_results or ()))


def take_result(turn: Turn, reply: Reply, max_retries: int, now: int) -> Transition:
    """Process the model's reply to the request for the Run's result; an empty text is valid too."""
    turn = _measure(turn, reply)
    results = turn.step.tool_results or ()
    if reply.finish_reason in (FinishReason.STOP, FinishReason.TOOL_CALLS):
        answered = turn.add(tool_message(turn.checkpoint, results))
        return complete(answered, reply.with_(tool_calls=()), now)
    return _refuse(turn, reply, max_retries, now, tool_message(turn.checkpoint, results))


def take_failure(turn: Turn, failure: Failure, max_retries: int, now: int) -> Transition:
    """Process a failed model call, in a step or for the result."""
    answered = turn.step.tool_results
    before = () if answered is None else (tool_message(turn.checkpoint, answered),)
    if not failure.is_retryable:
        error = RunError(name=failure.name, message=failure.message, status_code=failure.status_code)
        return stop_by_error(turn.add(*before), error, now)
    problem = ReplyProblem(failure.name, failure.message, failure.status_code)
    pause = pause_before_retry(failure, turn.checkpoint.retry_count or 0)
    return _retry(turn, problem, max_retries, now, before, pause=pause)


def pause_before_retry(failure: Failure, retries: int) -> float:
    """The seconds to wait after `failure`, given the number of consecutive `retries` before it."""
    requested = failure.retry_after_ms
    pause = _FIRST_PAUSE * 2 ** min(retries, 16) if requested is None else requested / 1000
    return min(max(pause, 0.0), LONGEST_PAUSE)


def complete(turn: Turn, reply: Reply, now: int) -> Transition:
    """End the Run with the text of `reply`, whose tokens are already counted."""
    done = turn.add(expert_message(turn.checkpoint, reply), retry_count=0)
    cleared = done.with_checkpoint(pending_tool_calls=None, partial_tool_results=None)
    return stop(cleared, Status.COMPLETED, CompleteRun, now, text=reply.text, usage=reply.usage)


def resolve(turn: Turn) -> Transition:
    """Add the results of a step to the conversation."""
    message = tool_message(turn.checkpoint, turn.step.tool_results or ())
    joined = turn.add(message, pending_tool_calls=None, partial_tool_results=None)
    return Transition(Phase.FINISHING, joined, FinishToolCall, {"new_messages": (message,)})


def finish(turn: Turn, max_steps: int, now: int) -> Transition:
    """End a step: start the next, or stop at the job's step limit."""
    if turn.checkpoint.step_number >= max_steps:
        return stop(turn, Status.STOPPED_BY_EXCEEDED_MAX_STEPS, StopRunByExceededMaxSteps, now)
    checkpoint = turn.checkpoint
    following = checkpoint.following
    fields = {"checkpoint": checkpoint, "step": turn.step.with_(finished_at=now), "next_checkpoint": following}
    return Transition(
        Phase.PREPARING,
        Turn(following, Step(step_number=following.step_number, started_at=now)),
        ContinueToNextStep,
        fields,
    )


def _instruction_message(run: Run, instruction: str) -> InstructionMessage:
    message_id = next_id(run.checkpoint)
    return InstructionMessage(
        id=message_id, contents=(TextPart(id=identify(message_id, 0), text=instruction),), cache=True
    )


def _measure(turn: Turn, reply: Reply) -> Turn:
    window = turn.checkpoint.context_window
    used = reply.usage.input_tokens + reply.usage.cached_input_tokens + reply.usage.output_tokens
    return turn.add(usage=reply.usage, context_window_usage=used / window if window else None)


def _call_tools(turn: Turn, reply: Reply, routes: Routes) -> Transition:
    calls = tuple(sorted((_named(call, routes) for call in reply.tool_calls), key=lambda call: _order(call, routes)))
    message = expert_message(turn.checkpoint, reply, calls)
    called = turn.add(message, retry_count=0).with_step(tool_calls=calls)
    return Transition(
        Phase.CALLING, called, CallTools, {"new_message": message, "tool_calls": calls, "usage": reply.usage}
    )


def _are_well_formed(calls: tuple[RequestedCall, ...]) -> bool:
    lengths = [length for call in calls for length in (len(call.id), len(call.name))]
    return len({call.id for call in calls}) == len(calls) and all(0 < length <= _NAME_LENGTH for length in lengths)


def _with_fresh_ids(reply: Reply, checkpoint: Checkpoint) -> Reply:
    """Rename calls whose ids already occur in the conversation, the same way in every attempt.

    Some servers restart numbering in each reply (`functions.read:0`). Results are matched by these ids, so the later
    call would get the result of the earlier one.
    """
    taken = set(call_ids(checkpoint.messages))
    calls = (
        call.with_(id=identify(checkpoint.id, "call", index)) if call.id in taken else call
        for index, call in enumerate(reply.tool_calls)
    )
    return reply.with_(tool_calls=tuple(calls))


def _named(call: RequestedCall, routes: Routes) -> ToolCall:
    route = routes.get(call.name)
    skill_name = UNKNOWN_SKILL if route is None else route.skill_name
    return ToolCall(id=call.id, skill_name=skill_name, tool_name=call.name, args=call.args)


def _order(call: ToolCall, routes: Routes) -> int:
    route = routes.get(call.tool_name)
    return Kind.SKILL if route is None else route.kind


def _retry_cut_calls(turn: Turn, reply: Reply, routes: Routes, max_retries: int, now: int) -> Transition:
    call = _named(reply.tool_calls[0], routes)
    result = error_result(call, "LengthExceeded", _CUT_CALLS)
    message = expert_message(turn.checkpoint, reply, (call,))
    answer = tool_message(turn.checkpoint, (result,), ahead=1)
    problem = ReplyProblem("LengthExceeded", _CUT_CALLS)
    fields = {"tool_calls": (call,), "tool_results": (result,)}
    return _retry(turn, problem, max_retries, now, (message, answer), usage=reply.usage, explain=False, fields=fields)


def _refuse(turn: Turn, reply: Reply, max_retries: int, now: int, *before: Message) -> Transition:
    has_content = bool(reply.text.strip() or reply.tool_calls)
    if reply.finish_reason is FinishReason.CONTENT_FILTER:
        return stop_by_error(turn.add(*before), RunError(name="ContentFiltered", message=_FILTERED), now)
    if reply.finish_reason is FinishReason.OTHER and has_content:
        return stop_by_error(turn.add(*before), RunError(name="UnexpectedFinishReason", message=_UNEXPLAINED_STOP), now)
    if reply.finish_reason is FinishReason.LENGTH:
        partial = (expert_message(turn.checkpoint, reply, ahead=len(before)),) if reply.text.strip() else ()
        problem = ReplyProblem("LengthExceeded", _CUT_TEXT)
        return _retry(turn, problem, max_retries, now, (*before, *partial), usage=reply.usage)
    return _retry(turn, ReplyProblem("EmptyReply", _EMPTY), max_retries, now, before, usage=reply.usage)


def _retry(  # noqa: PLR0913 - one place decides between retry and end, for every kind of error
    turn: Turn,
    problem: ReplyProblem,
    max_retries: int,
    now: int,
    before: tuple[Message, ...],
    *,
    usage: Usage | None = None,
    pause: float = 0.0,
    explain: bool = True,
    fields: dict[str, Any] | None = None,
) -> Transition:
    retries = turn.checkpoint.retry_count or 0
    if retries >= max_retries:
        message = f"Max retries ({max_retries}) exceeded: {problem.message}"
        error = RunError(name="MaxRetriesExceeded", message=message, status_code=problem.status_code)
        return stop_by_error(turn.add(*before), error, now)  # Every call has a result, so the Run can be continued.
    reason = json.dumps({"error": problem.name, "message": problem.message}, ensure_ascii=False)
    explained = (user_message(turn.checkpoint, reason, ahead=len(before)),) if explain else ()
    messages = (*before, *explained)
    again = turn.add(*messages, retry_count=retries + 1)
    shown = {"reason": reason, "new_messages": messages, "usage": usage or Usage(), **(fields or {})}
    return Transition(Phase.FINISHING, again, Retry, shown, pause)
