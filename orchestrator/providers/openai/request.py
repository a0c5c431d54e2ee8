"""Convert a ModelRequest to the format of the Chat Completions API, which differs between vendors. Pure functions."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.providers.api import ModelRequest
from orchestrator.providers.media import data_url, text_of
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
    UserPart,
)

_PDF = "application/pdf"


def no_options(_request: ModelRequest) -> Mapping[str, Any]:
    """Return no option for reasoning (docs/reference/perstack.md#reasoning)."""
    return {}


@dataclass(frozen=True, slots=True)
class Dialect:
    """How one API differs from others with this format.

    `key` is the variable that holds its key. `reasoning` returns the fields that request reasoning.
    `replays_reasoning`: the API rejects a tool call in the conversation that is sent back without its reasoning.
    """

    key: str | None
    reasoning: Callable[[ModelRequest], Mapping[str, Any]] = no_options
    replays_reasoning: bool = False


def request_body(request: ModelRequest, dialect: Dialect) -> dict[str, Any]:
    """The body of a request."""
    return {
        "model": request.model,
        "messages": [turn for message in request.messages for turn in _turns(message, dialect)],
        "stream": True,
        "stream_options": {"include_usage": True},
        **({"tools": [_tool(tool) for tool in request.tools]} if request.tools else {}),
        **dialect.reasoning(request),
    }


def _tool(tool: ToolDefinition) -> dict[str, Any]:
    described = {"description": tool.description} if tool.description else {}
    return {"type": "function", "function": {"name": tool.name, **described, "parameters": tool.input_schema}}


def _turns(message: Message, dialect: Dialect) -> list[dict[str, Any]]:
    match message:
        case InstructionMessage():
            return [{"role": "system", "content": _joined(message.contents)}] if message.contents else []
        case UserMessage():
            contents = [_content(part) for part in message.contents if not _is_blank(part)]
            return [{"role": "user", "content": contents}] if contents else []
        case ExpertMessage():
            return _assistant(message, dialect)
        case ToolMessage():
            return _results(message)


def _assistant(message: ExpertMessage, dialect: Dialect) -> list[dict[str, Any]]:
    text = "".join(part.text for part in message.contents if isinstance(part, TextPart))
    calls = [_call(part) for part in message.contents if isinstance(part, ToolCallPart)]
    if not (calls or text.strip()):
        return []
    turn: dict[str, Any] = {"role": "assistant", "content": text or None}
    if calls:
        turn["tool_calls"] = calls
    if calls and dialect.replays_reasoning:
        thoughts = [part.thinking for part in message.contents if isinstance(part, ThinkingPart)]
        turn["reasoning_content"] = "\n\n".join(thoughts)
    return [turn]


def _call(part: ToolCallPart) -> dict[str, Any]:
    arguments = json.dumps(part.args, ensure_ascii=False)
    return {"id": part.tool_call_id, "type": "function", "function": {"name": part.tool_name, "arguments": arguments}}


def _results(message: ToolMessage) -> list[dict[str, Any]]:
    """A turn for each result. Other content than text follows as the user's, since a result can contain only text."""
    turns: list[dict[str, Any]] = []
    shown: list[dict[str, Any]] = []
    for part in message.contents:
        texts = [item.text for item in part.contents if isinstance(item, TextPart)]
        media = [item for item in part.contents if not isinstance(item, TextPart)]
        if media:
            texts.append(f"[{len(media)} of what this tool gave follow below]")
            shown += [{"type": "text", "text": _caption(part)}, *map(_content, media)]
        turns.append({"role": "tool", "tool_call_id": part.tool_call_id, "content": "\n".join(texts)})
    return [*turns, {"role": "user", "content": shown}] if shown else turns


def _caption(part: ToolResultPart) -> str:
    return f"[given by tool {part.tool_name} for call {part.tool_call_id}:]"


def _content(part: UserPart) -> dict[str, Any]:
    match part:
        case TextPart():
            return {"type": "text", "text": part.text}
        case ImageUrlPart():
            return {"type": "image_url", "image_url": {"url": part.url}}
        case ImageInlinePart() | ImageBinaryPart():
            return {"type": "image_url", "image_url": {"url": data_url(part)}}
        case FileUrlPart():
            return {"type": "text", "text": f"[a file of type {part.mime_type} at {part.url}]"}
        case FileInlinePart() | FileBinaryPart() if part.mime_type == _PDF:
            return {"type": "file", "file": {"filename": "file.pdf", "file_data": data_url(part)}}
        case FileInlinePart() | FileBinaryPart():
            return {"type": "text", "text": text_of(part)}


def _is_blank(part: UserPart) -> bool:
    return isinstance(part, TextPart) and not part.text.strip()


def _joined(parts: Iterable[TextPart]) -> str:
    return "\n\n".join(part.text for part in parts if part.text)
