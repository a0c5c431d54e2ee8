"""What an MCP server answers, as parts that the model reads (spec 5.5; E8)."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mcp_types import (
    AudioContent,
    BlobResourceContents,
    ContentBlock,
    EmbeddedResource,
    ImageContent,
    TextContent,
    TextResourceContents,
)

from orchestrator.runtime.tools import to_json
from orchestrator.wire.message import FileInlinePart, ImageInlinePart, ResultPart, TextPart


def to_parts(
    content: Sequence[ContentBlock], args: Mapping[str, Any], part_id: Callable[[], str]
) -> tuple[ResultPart, ...]:
    """Turn an answer into parts; what the model cannot be shown becomes a text that says so."""
    if not content:
        return (TextPart(id=part_id(), text=f"The tool returned nothing. Its arguments were: {to_json(args)}"),)
    return tuple(_part(block, part_id()) for block in content)


def _part(block: ContentBlock, part_id: str) -> ResultPart:
    match block:
        case ImageContent(data=data, mime_type=mime_type) if data and mime_type:
            return ImageInlinePart(id=part_id, encoded_data=data, mime_type=mime_type)
        case EmbeddedResource(resource=BlobResourceContents(blob=blob, mime_type=mime_type)) if blob and mime_type:
            return FileInlinePart(id=part_id, encoded_data=blob, mime_type=mime_type)
        case _:
            return TextPart(id=part_id, text=_text(block))


def _text(block: ContentBlock) -> str:
    match block:
        case TextContent(text=text) | EmbeddedResource(resource=TextResourceContents(text=text)):
            return text or "Error: No content"
        case ImageContent():
            return "Error: the tool returned an image without data or type"
        case EmbeddedResource(resource=resource):
            return f"Error: the resource {resource.uri} came without data or type"
        case AudioContent(mime_type=mime_type):
            return f"[audio of type {mime_type} was left out: it cannot be shown]"
        case _:
            return f"[a link to the resource {block.uri} was left out: it is not followed]"
