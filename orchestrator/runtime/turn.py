"""One turn of the loop as values: its state, and the next move."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any

from orchestrator.wire.checkpoint import Checkpoint, RunError, Status, Step
from orchestrator.wire.conversation import next_id
from orchestrator.wire.event import RunEvent, StopRunByError
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
)
from orchestrator.wire.usage import Usage


class Phase(Enum):
    """What to do next (docs/reference/perstack.md#state-events)."""

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
    """The conversation so far and the current step."""

    checkpoint: Checkpoint
    step: Step

    def add(self, *messages: Message, usage: Usage | None = None, **changes: Any) -> "Turn":
        """The turn with messages added to the conversation, tokens counted, and other fields of the checkpoint set."""
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
class Transition:
    """A decision: the next phase, the turn at that point, and the event that reports it.

    `pause` is the seconds to wait before the next generation.
    """

    phase: Phase
    turn: Turn
    event: type[RunEvent]
    fields: Mapping[str, Any] = field(default_factory=dict)
    pause: float = 0.0


def stop(turn: Turn, status: Status, event: type[RunEvent], now: int, **fields: Any) -> Transition:
    """End the Run; the event shows exactly what is stored."""
    ended = turn.with_checkpoint(status=status).with_step(finished_at=now)
    return Transition(Phase.STOPPED, ended, event, {"checkpoint": ended.checkpoint, "step": ended.step, **fields})


def stop_by_error(turn: Turn, error: RunError, now: int) -> Transition:
    """End the Run in error. Unlike upstream, the checkpoint already contains the error."""
    failed = turn.with_checkpoint(error=error)
    return stop(failed, Status.STOPPED_BY_ERROR, StopRunByError, now, error=error)


def expert_message(
    checkpoint: Checkpoint, reply: Reply, calls: Iterable[ToolCall] = (), ahead: int = 0
) -> ExpertMessage:
    """The model's output as a message: thinking, then text, then calls (docs/reference/perstack.md#messages)."""
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
