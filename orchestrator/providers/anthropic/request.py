"""Convert a ModelRequest to the format of the Messages API. Pure functions."""

from collections.abc import Iterable, Sequence
from functools import singledispatch
from typing import Any

from orchestrator.providers.api import ModelRequest
from orchestrator.providers.media import encoded, read_text
from orchestrator.providers.models import max_output
from orchestrator.wire.frozen import Frozen
from orchestrator.wire.generation import ToolDefinition
from orchestrator.wire.message import (
    ExpertMessage,
    FileBinaryPart,
    FileInlinePart,
    FileUrlPart,
    ImageBinaryPart,
    ImageInlinePart,
    ImageUrlPart,
    InstructionMessage,
    Message,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    ToolMessage,
    ToolResultPart,
    UserMessage,
)

Block = dict[str, Any]

REDACTED = "redacted_thinking:"
"""Marks a signature that holds the data of a redacted thinking block, to be sent back as such a block."""

_DEFAULT_OUTPUT_TOKENS = 32_000
_MIN_THINKING_TOKENS = 1024
_MIN_ANSWER_TOKENS = 1024
_PDF = "application/pdf"


def request_body(request: ModelRequest) -> dict[str, Any]:
    """The body of a request, without `stream`."""
    turns = _turns(request.messages)
    max_tokens = max_output("anthropic", request.model)
    thinking = _thinking_budget(request.reasoning_tokens, max_tokens) if _may_think(turns) else 0
    return {
        "model": request.model,
        "messages": turns,
        # Thinking counts as output: of an unknown model, leave at least half of the default for the answer.
        "max_tokens": max_tokens or max(_DEFAULT_OUTPUT_TOKENS, thinking + _DEFAULT_OUTPUT_TOKENS // 2),
        **_system(request.messages),
        **({"tools": [_tool(tool) for tool in request.tools]} if request.tools else {}),
        **({"thinking": {"type": "enabled", "budget_tokens": thinking}} if thinking else {}),
    }


def _thinking_budget(requested: int, known_output: int | None) -> int:
    """The thinking budget that the API accepts: at least 1024 tokens, and less than the whole output."""
    if requested <= 0:
        return 0
    budget = max(requested, _MIN_THINKING_TOKENS)
    return budget if known_output is None else min(budget, known_output - _MIN_ANSWER_TOKENS)


def _may_think(turns: Sequence[Block]) -> bool:
    """Whether a reply may start with thinking.

    Between the tool calls of a turn it may not, unless the turn started with thinking.
    """
    last: Sequence[Block] | None = next(
        (turn["content"] for turn in reversed(turns) if turn["role"] == "assistant"), None
    )
    # A turn may also start with `redacted_thinking`.
    return last is None or last[-1]["type"] != "tool_use" or "thinking" in last[0]["type"]


def _system(messages: Iterable[Message]) -> dict[str, Any]:
    blocks: list[Block] = []
    for message in messages:
        if isinstance(message, InstructionMessage):
            texts: list[Block] = [{"type": "text", "text": part.text} for part in message.contents if part.text]
            if texts and message.cache:
                texts[-1]["cache_control"] = {"type": "ephemeral"}
            blocks += texts
    return {"system": blocks} if blocks else {}


def _tool(tool: ToolDefinition) -> dict[str, Any]:
    described = {"description": tool.description} if tool.description else {}
    return {"name": tool.name, **described, "input_schema": tool.input_schema}


def _turns(messages: Iterable[Message]) -> list[Block]:
    """User and assistant turns; consecutive messages of one role are one turn, and empty turns are left out."""
    turns: list[Block] = []
    for message in messages:
        role, blocks = _turn(message)
        if not blocks:
            continue
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] += blocks
        else:
            turns.append({"role": role, "content": blocks})
    return turns


def _turn(message: Message) -> tuple[str, list[Block]]:
    if isinstance(message, ExpertMessage):
        order = ("thinkingPart", "textPart", "toolCallPart")
        parts = sorted(message.contents, key=lambda part: order.index(part.type))
        return "assistant", [found for part in parts if (found := block(part))]
    if isinstance(message, UserMessage | ToolMessage):
        return "user", [found for part in message.contents if (found := block(part))]
    return "system", []


@singledispatch
def block(part: Frozen) -> Block | None:
    """One part of a message as a content block; None if it is empty and the API would reject it."""
    message = f"{type(part).__name__} has no content block"
    raise TypeError(message)


@block.register
def _(part: TextPart) -> Block | None:
    return {"type": "text", "text": part.text} if part.text.strip() else None


@block.register
def _(part: ImageUrlPart) -> Block:
    return {"type": "image", "source": {"type": "url", "url": part.url}}


@block.register
def _(part: ImageInlinePart | ImageBinaryPart) -> Block:
    return {"type": "image", "source": {"type": "base64", "media_type": part.mime_type, "data": encoded(part)}}


@block.register
def _(part: FileUrlPart) -> Block:
    if part.mime_type == _PDF:
        return {"type": "document", "source": {"type": "url", "url": part.url}}
    return {"type": "text", "text": f"[a file of type {part.mime_type} at {part.url}]"}


@block.register
def _(part: FileInlinePart | FileBinaryPart) -> Block:
    if part.mime_type == _PDF:
        return {"type": "document", "source": {"type": "base64", "media_type": _PDF, "data": encoded(part)}}
    try:
        text = read_text(part)
    except ValueError as error:
        return {"type": "text", "text": str(error)}
    return {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": text}}


@block.register
def _(part: ThinkingPart) -> Block | None:
    if not part.signature:
        return None
    if part.signature.startswith(REDACTED):
        return {"type": "redacted_thinking", "data": part.signature.removeprefix(REDACTED)}
    return {"type": "thinking", "thinking": part.thinking, "signature": part.signature}


@block.register
def _(part: ToolCallPart) -> Block:
    return {"type": "tool_use", "id": part.tool_call_id, "name": part.tool_name, "input": part.args}


@block.register
def _(part: ToolResultPart) -> Block:
    contents = [found for item in part.contents if (found := block(item))]
    return {
        "type": "tool_result",
        "tool_use_id": part.tool_call_id,
        **({"content": contents} if contents else {}),
        **({"is_error": True} if part.is_error else {}),
    }
