"""What joins a conversation besides what the model says, purely; on both sides, since a Run may not live to say it."""

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

_PASSED = "not carried out: the work stopped before it, and then the user went on; call this again if it is needed"


def next_id(checkpoint: Checkpoint, ahead: int = 0) -> str:
    """The id of the message that joins the conversation after `ahead` others; the same whenever derived again."""
    return identify(checkpoint.id, "message", len(checkpoint.messages) + ahead)


def user_message(checkpoint: Checkpoint, text: str, ahead: int = 0) -> UserMessage:
    """What is said in the user's place."""
    message_id = next_id(checkpoint, ahead)
    return UserMessage(id=message_id, contents=(TextPart(id=identify(message_id, 0), text=text),))


def hear(start: Checkpoint, words: str, ahead: int = 0) -> Checkpoint:
    """Let the user's words join the conversation after `ahead` other messages, and the results that it waits for first.

    No API takes words between calls and their results, so a call that nobody answered gets an error for one.
    """
    unanswered = (error_result(call, "NotCarriedOut", _PASSED) for call in start.pending_tool_calls or ())
    results = (*(start.partial_tool_results or ()), *unanswered)
    answers = (tool_message(start, results, ahead),) if results else ()
    said = (*answers, user_message(start, words, ahead + len(answers)))
    return start.with_(messages=(*start.messages, *said), pending_tool_calls=None, partial_tool_results=None)


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
