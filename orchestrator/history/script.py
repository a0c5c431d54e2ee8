"""Turn a job's records into a script for the scripted provider, so that the job replays without a model.

The n-th model call of a conversation gets the n-th reply (see `providers.scripted`). Replies are in the records; failed
calls are recognized by the event that followed.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.history.runs import Conversation, RunHistory
from orchestrator.wire.event import (
    AnyEvent,
    AttemptCompletion,
    CallTools,
    CompleteRun,
    Retry,
    StartGeneration,
    StartRun,
    StopRunByError,
)
from orchestrator.wire.generation import FinishReason, Reply
from orchestrator.wire.masking import MARK

CallOutcome = CallTools | CompleteRun | Retry | StopRunByError
"""The event that ends a model call."""

Replies = Mapping[tuple[str, str], Reply]
"""Replies of the model, by run id and request id."""

_OUT_OF_RETRIES = "MaxRetriesExceeded"


@dataclass(frozen=True, slots=True)
class ModelCall:
    """One model call of a Run; `outcome` is None if the call was interrupted."""

    run_id: str
    request_id: str
    outcome: CallOutcome | None


@dataclass(frozen=True, slots=True)
class Script:
    """The replies file as JSON, and sentences about what it cannot replay."""

    document: Mapping[str, Any]
    notes: tuple[str, ...]


def model_calls(run: RunHistory) -> tuple[ModelCall, ...]:
    """Return the model calls that led to the Run's final state, without repeated calls of lost attempts."""
    attempts: dict[int, list[AnyEvent]] = {}
    for event in run.events:
        if event.attempt is not None:
            attempts.setdefault(event.attempt, []).append(event)
    found: list[tuple[int, ModelCall]] = []
    for _, events in sorted(attempts.items()):
        start = next((event for event in events if isinstance(event, StartRun)), None)
        if start is not None:
            # The attempt repeats the step at which it starts, and everything after it.
            found = [(step, call) for step, call in found if step < start.step_number]
        found += _calls(run.setting.run_id, events, len(found))
    return tuple(call for _, call in found)


def _calls(run_id: str, events: Iterable[AnyEvent], before: int) -> list[tuple[int, ModelCall]]:
    """The calls of one attempt; numbers continue from the calls `before`, failed ones included."""
    calls: list[tuple[int, ModelCall]] = []
    open_step: int | None = None

    def close(outcome: CallOutcome | None) -> None:
        if open_step is not None:
            calls.append((open_step, ModelCall(run_id, f"{open_step}/{before + len(calls)}", outcome)))

    for event in events:
        if isinstance(event, StartGeneration | AttemptCompletion):
            open_step = event.step_number
        elif isinstance(event, CallOutcome):
            close(event)
            open_step = None
    close(None)
    return calls


def script(runs: Sequence[RunHistory], replies: Replies) -> Script:
    """Create the script: a list of replies for each Expert, or branches if its conversations differ."""
    conversations: dict[tuple[str, Conversation], list[RunHistory]] = {}
    for run in runs:
        conversations.setdefault((run.setting.expert_key, run.conversation), []).append(run)
    by_expert: dict[str, list[dict[str, Any]]] = {}
    for (expert_key, _), members in conversations.items():
        branch = [entry for run in members for entry in _entries(run, replies)]
        query = next((run.setting.query for run in members if run.setting.query), "")
        by_expert.setdefault(expert_key, []).append({"when": _query_part(query), "replies": branch})
    notes: list[str] = []
    document = {expert_key: _listed(expert_key, branches, notes) for expert_key, branches in by_expert.items()}
    return Script(document, tuple(notes))


def _entries(run: RunHistory, replies: Replies) -> Iterable[dict[str, Any]]:
    for call in model_calls(run):
        reply = replies.get((call.run_id, call.request_id))
        if reply is not None:
            yield _reply(reply)
        elif call.outcome is not None:
            yield _failure(call.outcome)


def _listed(expert_key: str, branches: list[dict[str, Any]], notes: list[str]) -> list[dict[str, Any]]:
    if all(branch["replies"] == branches[0]["replies"] for branch in branches):
        replies: list[dict[str, Any]] = branches[0]["replies"]
        return replies
    branches_by_query: dict[str, dict[str, Any]] = {}
    for branch in branches:
        earlier = branches_by_query.setdefault(branch["when"], branch)
        if earlier["replies"] != branch["replies"]:
            notes.append(
                f"two conversations of Expert {expert_key!r} started with the same query and then differed; "
                "the replay uses the replies of the first for both"
            )
    # A query may occur inside a longer one, and the first matching branch is used.
    return sorted(branches_by_query.values(), key=lambda branch: -len(branch["when"]))


def _query_part(query: str) -> str:
    return max(query.split(MARK), key=len)


def _reply(reply: Reply) -> dict[str, Any]:
    usage = {"inputTokens": reply.usage.input_tokens, "outputTokens": reply.usage.output_tokens}
    usual = FinishReason.TOOL_CALLS if reply.tool_calls else FinishReason.STOP
    entry = {
        "reasoning": "".join(block.text for block in reply.reasoning),
        "text": reply.text,
        "toolCalls": [{"name": call.name, "args": call.args} for call in reply.tool_calls],
        "usage": usage if any(usage.values()) else {},
        "finishReason": "" if reply.finish_reason is usual else reply.finish_reason.value,
    }
    return {name: value for name, value in entry.items() if value}


def _failure(outcome: CallOutcome) -> dict[str, Any]:
    match outcome:
        case StopRunByError(error=error) if error.name != _OUT_OF_RETRIES:
            entry = {"name": error.name, "message": error.message, "statusCode": error.status_code}
        case StopRunByError(error=error):
            message = error.message.partition("exceeded: ")[2] or error.message
            entry = {"message": message, "statusCode": error.status_code, **_AGAIN}
        case Retry():
            entry = {**_reason(outcome.reason), **_AGAIN}
        case _:
            entry = {"message": "the record of this reply is missing"}
    return {"error": {name: value for name, value in entry.items() if value is not None}}


_AGAIN = {"isRetryable": True, "retryAfterMs": 0}


def _reason(text: str) -> dict[str, Any]:
    try:
        reason = json.loads(text)
        return {"name": str(reason["error"]), "message": str(reason["message"])}
    except (ValueError, KeyError, TypeError):
        return {"message": text}
