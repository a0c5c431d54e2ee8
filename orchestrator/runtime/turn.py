"""One turn of the loop as values: where it stands, and the move that comes next."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any

from orchestrator.wire.any_event import RunEvent
from orchestrator.wire.checkpoint import Checkpoint, RunError, Status, Step
from orchestrator.wire.generation import Reply
from orchestrator.wire.identity import identify
from orchestrator.wire.message import (
    ExpertMessage,
    ExpertPart,
    Message,
    TextPart,
    ThinkingPart,
    ToolCall,
    ToolCallPart,
    ToolMessage,
    ToolResult,
    ToolResultPart,
    UserMessage,
)
from orchestrator.wire.state_event import StopRunByError
from orchestrator.wire.usage import Usage


class Phase(Enum):
    """The states of spec 3.5; what is to be done next."""

    PREPARING = auto()
    GENERATING = auto()
    CALLING = auto()
    RESOLVING = auto()
    GENERATING_RESULT = auto()
    CALLING_INTERACTIVE = auto()
    CALLING_DELEGATE = auto()
    FINISHING = auto()
    STOPPED = auto()


@dataclass(frozen=True, slots=True)
class Turn:
    """The conversation so far and the step under way."""

    checkpoint: Checkpoint
    step: Step

    def add(self, *messages: Message, usage: Usage | None = None, **changes: Any) -> "Turn":
        """The turn with messages joined to the conversation, tokens counted, and other fields of the checkpoint set."""
        used = usage or Usage()
        return Turn(
            self.checkpoint.with_(
                messages=(*self.checkpoint.messages, *messages), usage=self.checkpoint.usage + used, **changes
            ),
            self.step.with_(new_messages=(*self.step.new_messages, *messages), usage=self.step.usage + used),
        )

    def with_step(self, **changes: Any) -> "Turn":
        """The turn with fields of its step set."""
        return Turn(self.checkpoint, self.step.with_(**changes))

    def with_checkpoint(self, **changes: Any) -> "Turn":
        """The turn with fields of its checkpoint set."""
        return Turn(self.checkpoint.with_(**changes), self.step)


@dataclass(frozen=True, slots=True)
class Move:
    """What was decided: the phase that follows, the turn as it is then, and the event that says so.

    `pause` is seconds to wait before the next generation.
    """

    phase: Phase
    turn: Turn
    event: type[RunEvent]
    fields: Mapping[str, Any] = field(default_factory=dict)
    pause: float = 0.0


def stop(turn: Turn, status: Status, event: type[RunEvent], now: int, **fields: Any) -> Move:
    """End the Run; what the event shows is what is kept."""
    ended = turn.with_checkpoint(status=status).with_step(finished_at=now)
    return Move(Phase.STOPPED, ended, event, {"checkpoint": ended.checkpoint, "step": ended.step, **fields})


def stop_by_error(turn: Turn, error: RunError, now: int) -> Move:
    """End the Run in error. The checkpoint holds the error already, unlike upstream (spec 4.4)."""
    failed = turn.with_checkpoint(error=error)
    return stop(failed, Status.STOPPED_BY_ERROR, StopRunByError, now, error=error)


def next_id(checkpoint: Checkpoint, ahead: int = 0) -> str:
    """The id of the message that joins the conversation after `ahead` others; the same whenever derived again."""
    return identify(checkpoint.id, "message", len(checkpoint.messages) + ahead)


def user_message(checkpoint: Checkpoint, text: str, ahead: int = 0) -> UserMessage:
    """What is said in the user's place."""
    message_id = next_id(checkpoint, ahead)
    return UserMessage(id=message_id, contents=(TextPart(id=identify(message_id, 0), text=text),))


def expert_message(
    checkpoint: Checkpoint, reply: Reply, calls: Iterable[ToolCall] = (), ahead: int = 0
) -> ExpertMessage:
    """What the model said: thinking, then text, then calls (spec 4.2)."""
    message_id = next_id(checkpoint, ahead)
    parts: list[ExpertPart] = []
    for block in reply.reasoning:
        part_id = identify(message_id, len(parts))
        parts.append(ThinkingPart(id=part_id, thinking=block.text, signature=block.signature))
    if reply.text:
        parts.append(TextPart(id=identify(message_id, len(parts)), text=reply.text))
    for call in calls:
        part_id = identify(message_id, len(parts))
        parts.append(ToolCallPart(id=part_id, tool_call_id=call.id, tool_name=call.tool_name, args=call.args))
    return ExpertMessage(id=message_id, contents=tuple(parts))


def tool_message(checkpoint: Checkpoint, results: Iterable[ToolResult], ahead: int = 0) -> ToolMessage:
    """All results of a step, in the order of the calls that the Expert's last message made."""
    message_id = next_id(checkpoint, ahead)
    said = last_said(checkpoint)
    last = () if said is None else (said,)
    order = {call_id: index for index, call_id in enumerate(call_ids(last))}
    ordered = sorted(results, key=lambda result: order.get(result.id, len(order)))
    return ToolMessage(
        id=message_id,
        contents=tuple(
            ToolResultPart(
                id=identify(message_id, index),
                tool_call_id=result.id,
                tool_name=result.tool_name,
                contents=result.result,
                is_error=result.is_error,
            )
            for index, result in enumerate(ordered)
        ),
    )


def last_said(checkpoint: Checkpoint) -> ExpertMessage | None:
    """The Expert's last message."""
    return next((message for message in reversed(checkpoint.messages) if isinstance(message, ExpertMessage)), None)


def error_result(call: ToolCall, kind: str, message: str) -> ToolResult:
    """The answer to a call that was not carried out."""
    text = json.dumps({"error": kind, "message": message}, ensure_ascii=False)
    part = TextPart(id=identify("error-result", call.id), text=text)
    return ToolResult(id=call.id, skill_name=call.skill_name, tool_name=call.tool_name, result=(part,), is_error=True)


def call_ids(messages: Iterable[Message]) -> Iterable[str]:
    """The ids of all tool calls that the Expert made in `messages`, in their order."""
    said = (message for message in messages if isinstance(message, ExpertMessage))
    return (part.tool_call_id for message in said for part in message.contents if isinstance(part, ToolCallPart))
