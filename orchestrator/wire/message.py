"""Messages of a conversation, tool calls and their results.

See docs/reference/perstack.md#messages and docs/reference/perstack.md#tool-calls-and-results.
"""

from typing import Annotated, Any

from msgspec import Meta

from orchestrator.wire.frozen import Frozen, Tagged

NAME_CHARACTERS = 255
"""The longest name of a skill or tool, and the longest id of a call, in characters."""


class TextPart(Tagged):
    """Plain text."""

    id: str
    text: str


class ImageUrlPart(Tagged):
    """An image at a URL."""

    id: str
    url: str
    mime_type: str


class ImageInlinePart(Tagged):
    """An image as base64."""

    id: str
    encoded_data: str
    mime_type: str


class ImageBinaryPart(Tagged):
    """An image as a string of bytes."""

    id: str
    data: str
    mime_type: str


class FileUrlPart(Tagged):
    """A file at a URL."""

    id: str
    url: str
    mime_type: str


class FileInlinePart(Tagged):
    """A file as base64."""

    id: str
    encoded_data: str
    mime_type: str


class FileBinaryPart(Tagged):
    """A file as a string of bytes."""

    id: str
    data: str
    mime_type: str


class ThinkingPart(Tagged):
    """Reasoning of the model, with the signature needed to send it back."""

    id: str
    thinking: str
    signature: str | None = None


class ToolCallPart(Tagged):
    """The model calls a tool."""

    id: str
    tool_call_id: str
    tool_name: str
    args: Any


ResultPart = TextPart | ImageInlinePart | FileInlinePart


class ToolResultPart(Tagged):
    """The result of a tool call."""

    id: str
    tool_call_id: str
    tool_name: str
    contents: tuple[ResultPart, ...]
    is_error: bool | None = None


UserPart = TextPart | ImageUrlPart | ImageInlinePart | ImageBinaryPart | FileUrlPart | FileInlinePart | FileBinaryPart
ExpertPart = TextPart | ToolCallPart | ThinkingPart


class InstructionMessage(Tagged):
    """The system prompt; always the first message, cached by the provider."""

    id: str
    contents: tuple[TextPart, ...]
    cache: bool | None = None


class UserMessage(Tagged):
    """Text of the user, or of the runtime in the user's role."""

    id: str
    contents: tuple[UserPart, ...]
    cache: bool | None = None


class ExpertMessage(Tagged):
    """The model's output: thinking parts, then text, then tool calls."""

    id: str
    contents: tuple[ExpertPart, ...]
    cache: bool | None = None


class ToolMessage(Tagged):
    """All results of one step."""

    id: str
    contents: tuple[ToolResultPart, ...]
    cache: bool | None = None


Message = InstructionMessage | UserMessage | ExpertMessage | ToolMessage


class ToolCall(Frozen):
    """A tool call of the model; `skill_name` is the skill's key, or the delegate's name."""

    id: Annotated[str, Meta(min_length=1, max_length=NAME_CHARACTERS)]
    skill_name: Annotated[str, Meta(min_length=1, max_length=NAME_CHARACTERS)]
    tool_name: Annotated[str, Meta(min_length=1, max_length=NAME_CHARACTERS)]
    args: dict[str, Any]


class ToolResult(Frozen):
    """The result of the ToolCall with the same id; `skill_name` is `delegate/<expert key>` for a delegate."""

    id: Annotated[str, Meta(min_length=1, max_length=NAME_CHARACTERS)]
    skill_name: str
    tool_name: str
    result: tuple[ResultPart, ...]
    is_error: bool | None = None
