"""Decide what follows from the tool calls of a step. Pure functions."""

import json
from collections.abc import Iterable
from dataclasses import dataclass

from orchestrator.runtime.decide import complete
from orchestrator.runtime.skills import Kind, Routes
from orchestrator.runtime.turn import Phase, Transition, Turn, stop
from orchestrator.wire.checkpoint import DelegateTo, Status
from orchestrator.wire.conversation import error_result, last_expert_message, tool_message
from orchestrator.wire.event import (
    AttemptCompletion,
    CallDelegate,
    CallInteractiveTool,
    ResolveToolResults,
    StopRunByDelegate,
    StopRunByInteractiveTool,
)
from orchestrator.wire.expert import ExpertId
from orchestrator.wire.generation import Reply
from orchestrator.wire.message import ExpertMessage, TextPart, ToolCall, ToolResult
from orchestrator.wire.skill import BASE_SKILL

COMPLETION_TOOL = "attemptCompletion"

_NOT_ALONE = (
    "not carried out: attemptCompletion ends the work and must be called alone; call this again if it is needed"
)


@dataclass(frozen=True, slots=True)
class CallPartition:
    """The calls of a step by who executes them; each call is in one field only, `refused` holds error results."""

    local: tuple[ToolCall, ...] = ()
    refused: tuple[ToolResult, ...] = ()
    delegated: tuple[ToolCall, ...] = ()
    interactive: tuple[ToolCall, ...] = ()
    completion: ToolCall | None = None


def partition(turn: Turn, routes: Routes) -> CallPartition:
    """Sort the pending calls of this step."""
    calls = _pending(turn)
    completion = next((call for call in calls if _is_completion(call)), None)
    if completion is not None:
        refused = tuple(error_result(call, "NotExecuted", _NOT_ALONE) for call in calls if call is not completion)
        return CallPartition(local=(completion,), refused=refused, completion=completion)
    refusals = {call.id: refusal for call in calls if (refusal := _refusal(call, routes)) is not None}
    accepted = [call for call in calls if call.id not in refusals]
    by_kind = {kind: tuple(call for call in accepted if routes[call.tool_name].kind is kind) for kind in Kind}
    return CallPartition(
        by_kind[Kind.SKILL], tuple(refusals.values()), by_kind[Kind.DELEGATE], by_kind[Kind.INTERACTIVE]
    )


def in_order(turn: Turn, results: Iterable[ToolResult]) -> tuple[ToolResult, ...]:
    """Return the results of this step's calls in the order of the calls."""
    by_id = {result.id: result for result in results}
    return tuple(by_id[call.id] for call in _pending(turn) if call.id in by_id)


def follow(turn: Turn, results: tuple[ToolResult, ...], calls: CallPartition, now: int) -> Transition:
    """Continue after `calls.local` have `results`; those are in call order and include the refusals."""
    answered = turn.with_step(
        tool_results=(*(turn.step.tool_results or ()), *results), pending_tool_calls=None, partial_tool_results=None
    )
    if calls.completion is not None:
        result = next(result for result in results if result.id == calls.completion.id)
        if not _open_todos(result):
            return _conclude(answered, result, now)
    waiting = (*calls.delegated, *calls.interactive)
    if not waiting:
        return Transition(Phase.RESOLVING, answered, ResolveToolResults, {"tool_results": answered.step.tool_results})
    remaining = answered.with_step(pending_tool_calls=waiting, partial_tool_results=answered.step.tool_results or None)
    common = {"new_message": _calling_message(turn), "usage": turn.step.usage}
    if calls.delegated:
        return Transition(Phase.CALLING_DELEGATE, remaining, CallDelegate, common | {"tool_calls": calls.delegated})
    return Transition(
        Phase.CALLING_INTERACTIVE, remaining, CallInteractiveTool, common | {"tool_call": calls.interactive[0]}
    )


def delegate(turn: Turn, routes: Routes, now: int) -> Transition:
    """Stop for the delegates; calls that the user must answer wait until the delegates are done."""
    pending = turn.step.pending_tool_calls or ()
    delegate_to = tuple(entry for call in pending if (entry := _delegate_to(call, routes)) is not None)
    delegated = {entry.tool_call_id for entry in delegate_to}
    remaining = turn.with_checkpoint(
        delegate_to=delegate_to,
        pending_tool_calls=tuple(call for call in pending if call.id not in delegated) or None,
        partial_tool_results=turn.step.partial_tool_results,
    )
    return stop(remaining, Status.STOPPED_BY_DELEGATE, StopRunByDelegate, now)


def interact(turn: Turn, now: int) -> Transition:
    """Stop for the user, who must answer the first of the pending calls."""
    remaining = turn.with_checkpoint(
        pending_tool_calls=turn.step.pending_tool_calls, partial_tool_results=turn.step.partial_tool_results
    )
    return stop(remaining, Status.STOPPED_BY_INTERACTIVE_TOOL, StopRunByInteractiveTool, now)


def _pending(turn: Turn) -> tuple[ToolCall, ...]:
    pending = turn.step.pending_tool_calls
    return (turn.step.tool_calls or ()) if pending is None else pending


def _is_completion(call: ToolCall) -> bool:
    return call.skill_name == BASE_SKILL and call.tool_name == COMPLETION_TOOL


def _refusal(call: ToolCall, routes: Routes) -> ToolResult | None:
    route = routes.get(call.tool_name)
    if route is None:
        offered = ", ".join(sorted(routes)) or "none"
        return error_result(call, "ToolNotFound", f"no tool {call.tool_name!r} exists; the tools are: {offered}")
    if route.kind is Kind.DELEGATE and not _query(call):
        return error_result(call, "EmptyQuery", f"delegate {call.tool_name!r} needs a non-empty text in 'query'")
    return None


def _query(call: ToolCall) -> str:
    query = call.args.get("query")
    return query if isinstance(query, str) and query.strip() else ""


def _delegate_to(call: ToolCall, routes: Routes) -> DelegateTo | None:
    route = routes.get(call.tool_name)
    if route is None or route.delegate is None:
        return None
    expert = ExpertId(key=route.delegate.key, name=route.delegate.name, version=route.delegate.version)
    return DelegateTo(expert=expert, tool_call_id=call.id, tool_name=call.tool_name, query=_query(call))


def _open_todos(result: ToolResult) -> bool:
    try:
        answer = json.loads(next(part.text for part in result.result if isinstance(part, TextPart)))
    except (StopIteration, ValueError):
        return False
    return isinstance(answer, dict) and bool(answer.get("remainingTodos"))


def _conclude(turn: Turn, result: ToolResult, now: int) -> Transition:
    text = _text(_calling_message(turn))
    if not text.strip():
        return Transition(Phase.GENERATING_RESULT, turn, AttemptCompletion, {"tool_result": result})
    answered = turn.add(tool_message(turn.checkpoint, turn.step.tool_results or ()))
    return complete(answered, Reply(text=text), now)


def _calling_message(turn: Turn) -> ExpertMessage:
    message = last_expert_message(turn.checkpoint)
    return ExpertMessage(id=turn.checkpoint.id, contents=()) if message is None else message


def _text(message: ExpertMessage) -> str:
    return "".join(part.text for part in message.contents if isinstance(part, TextPart))
