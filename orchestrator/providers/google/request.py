"""Convert a ModelRequest to the format of the Gemini API. Pure functions.

Thought signatures can be on parts of any kind and must be sent back on the same part. A ThinkingPart stores one, marked
with the part it was on: thinking, text, or the tool call with an id. This API does not use ids of calls: it matches a
result to its call by the tool's name and position.
"""

import base64
import binascii
from collections.abc import Iterable, Sequence
from typing import Any

from orchestrator.providers.api import ModelRequest
from orchestrator.providers.media import encoded, text_of
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
    ResultPart,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    ToolMessage,
    ToolResultPart,
    UserPart,
)

Part = dict[str, Any]

_MARK = "gemini"
_PDF = "application/pdf"
_STANDARD = str.maketrans("-_", "+/")


def signature(key: str, thought: bytes) -> str:
    """A thought signature as text: `key` is `thinking`, `text`, or `call:` and the call's id."""
    return f"{_MARK}:{key}:{base64.b64encode(thought).decode()}"


def contents(messages: Iterable[Message]) -> list[dict[str, Any]]:
    """User and model turns; consecutive messages of one role are one turn, and empty turns are left out.

    Raises:
        ValueError: an image or file is not base64.
    """
    turns: list[dict[str, Any]] = []
    for message in messages:
        role, parts = _turn(message)
        if not parts:
            continue
        if turns and turns[-1]["role"] == role:
            turns[-1]["parts"] += parts
        else:
            turns.append({"role": role, "parts": parts})
    return turns


def request_body(request: ModelRequest) -> dict[str, Any]:
    """The body of a request (https://ai.google.dev/api/generate-content).

    Raises:
        ValueError: an image or file of the conversation is not base64.
    """
    instructions = [
        {"text": part.text}
        for message in request.messages
        if isinstance(message, InstructionMessage)
        for part in message.contents
        if part.text
    ]
    tokens = request.reasoning_tokens
    thinking = {"thinkingConfig": {"thinkingBudget": tokens, "includeThoughts": True}}
    return {
        "contents": contents(request.messages),
        **({"systemInstruction": {"parts": instructions}} if instructions else {}),
        **({"tools": [{"functionDeclarations": [*map(_tool, request.tools)]}]} if request.tools else {}),
        **({"generationConfig": thinking} if tokens > 0 else {}),
    }


def _tool(tool: ToolDefinition) -> dict[str, Any]:
    described = {"description": tool.description} if tool.description else {}
    return {"name": tool.name, **described, "parametersJsonSchema": tool.input_schema}


def _turn(message: Message) -> tuple[str, list[Part]]:
    match message:
        case InstructionMessage():
            return "system", []
        case ExpertMessage():
            return "model", _model_parts(message)
        case ToolMessage():
            return "user", [found for part in message.contents for found in _result(part)]
        case _:
            return "user", [found for part in message.contents for found in _content(part)]


def _model_parts(message: ExpertMessage) -> list[Part]:
    signed = _signed(part.signature for part in message.contents if isinstance(part, ThinkingPart))
    text = "".join(part.text for part in message.contents if isinstance(part, TextPart))
    parts = [
        {"text": part.thinking, "thought": True, **_thought(signed, "thinking")}
        for part in message.contents
        if isinstance(part, ThinkingPart) and part.thinking and _key(part.signature) == "thinking"
    ]
    if text or "text" in signed:
        parts.append({"text": text, **_thought(signed, "text")})
    for part in message.contents:
        if isinstance(part, ToolCallPart):
            call = {"name": part.tool_name, "args": part.args}
            parts.append({"functionCall": call, **_thought(signed, f"call:{part.tool_call_id}")})
    return parts


def _signed(signatures: Iterable[str | None]) -> dict[str, bytes]:
    """Map keys to signatures; signatures of other providers are ignored."""
    found: dict[str, bytes] = {}
    for one in signatures:
        key = _key(one)
        if one is not None and key is not None:
            try:
                found[key] = base64.b64decode(one.rpartition(":")[2], validate=True)
            except binascii.Error:
                continue
    return found


def _key(one: str | None) -> str | None:
    mark, _, rest = (one or "").partition(":")
    return rest.rpartition(":")[0] if mark == _MARK else None


def _thought(signed: dict[str, bytes], key: str) -> Part:
    return {"thoughtSignature": written(signed[key])} if key in signed else {}


def _result(part: ToolResultPart) -> Sequence[Part]:
    """Convert a result. Other content than text follows the response, since a response can contain only JSON."""
    text = "\n".join(item.text for item in part.contents if isinstance(item, TextPart))
    media = [item for item in part.contents if not isinstance(item, TextPart)]
    if media and not text:
        text = f"[{len(media)} of what this tool gave follow below]"
    response = {"error" if part.is_error else "output": text}
    answer = {"functionResponse": {"name": part.tool_name, "response": response}}
    return [answer, *(found for item in media for found in _content(item))]


def _content(part: UserPart | ResultPart) -> Sequence[Part]:
    match part:
        case TextPart():
            return [{"text": part.text}] if part.text.strip() else []
        case ImageUrlPart() | FileUrlPart():
            return [{"fileData": {"fileUri": part.url, "mimeType": part.mime_type}}]
        case ImageInlinePart() | ImageBinaryPart():
            return [_inline(part)]
        case FileInlinePart() | FileBinaryPart() if part.mime_type == _PDF:
            return [_inline(part)]
        case FileInlinePart() | FileBinaryPart():
            return [{"text": text_of(part)}]


def _inline(part: ImageInlinePart | ImageBinaryPart | FileInlinePart | FileBinaryPart) -> Part:
    return {"inlineData": {"mimeType": part.mime_type, "data": written(decode_base64(encoded(part)))}}


def decode_base64(text: str) -> bytes:
    """Read base64 of either alphabet, with or without padding, as the API writes and accepts it.

    Raises:
        ValueError: it is none.
    """
    plain = text.rstrip("=").translate(_STANDARD)
    return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)


def written(content: bytes) -> str:
    """Write bytes as JSON of this API has them."""
    return base64.urlsafe_b64encode(content).decode()
