"""Messages that join a conversation apart from the model's own. Pure functions.

Both sides use them: the host adds these messages when the Sandbox of a Run was lost.
"""

import json
from collections.abc import Iterable

from orchestrator.wire.checkpoint import Checkpoint
from orchestrator.wire.identity import identify
from orchestrator.wire.message import (
    ExpertMessage,
    Message,
    TextPart,
    ToolCall,
    ToolCallPart,
    ToolMessage,
    ToolResult,
    ToolResultPart,
    UserMessage,
)

_SKIPPED = "not carried out: the work stopped before it, and then the user went on; call this again if it is needed"


def next_id(checkpoint: Checkpoint, ahead: int = 0) -> str:
    """Return the id of the message that joins the conversation after `ahead` others, the same each time."""
    return identify(checkpoint.id, "message", len(checkpoint.messages) + ahead)


def user_message(checkpoint: Checkpoint, text: str, ahead: int = 0) -> UserMessage:
    """A message in the user's role."""
    message_id = next_id(checkpoint, ahead)
    return UserMessage(id=message_id, contents=(TextPart(id=identify(message_id, 0), text=text),))


def append_user_text(start: Checkpoint, text: str, ahead: int = 0) -> Checkpoint:
    """Append the user's text to the conversation after `ahead` other messages, preceded by results of pending calls.

    No model API accepts text between calls and their results, so each unanswered call gets an error result.
    """
    unanswered = (error_result(call, "NotCarriedOut", _SKIPPED) for call in start.pending_tool_calls or ())
    results = (*(start.partial_tool_results or ()), *unanswered)
    answers = (tool_message(start, results, ahead),) if results else ()
    added = (*answers, user_message(start, text, ahead + len(answers)))
    return start.with_(messages=(*start.messages, *added), pending_tool_calls=None, partial_tool_results=None)


def tool_message(checkpoint: Checkpoint, results: Iterable[ToolResult], ahead: int = 0) -> ToolMessage:
    """The message with all results of a step, in the order of the calls in the Expert's last message."""
    message_id = next_id(checkpoint, ahead)
    message = last_expert_message(checkpoint)
    last = () if message is None else (message,)
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


def last_expert_message(checkpoint: Checkpoint) -> ExpertMessage | None:
    """Return the Expert's last message; None if it has sent none."""
    return next((message for message in reversed(checkpoint.messages) if isinstance(message, ExpertMessage)), None)


def error_result(call: ToolCall, kind: str, message: str) -> ToolResult:
    """The result of a call that was not carried out."""
    text = json.dumps({"error": kind, "message": message}, ensure_ascii=False)
    part = TextPart(id=identify("error-result", call.id), text=text)
    return ToolResult(id=call.id, skill_name=call.skill_name, tool_name=call.tool_name, result=(part,), is_error=True)


def call_ids(messages: Iterable[Message]) -> Iterable[str]:
    """Return the ids of all tool calls that the Expert made in `messages`, in order."""
    own = (message for message in messages if isinstance(message, ExpertMessage))
    return (part.tool_call_id for message in own for part in message.contents if isinstance(part, ToolCallPart))
