"""Messages of a conversation, tool calls and their results (spec 4.2, 4.3)."""

from typing import Annotated, Any, Literal

from pydantic import Field

from orchestrator.wire.frozen import Frozen


class TextPart(Frozen):
    """Plain text."""

    type: Literal["textPart"] = "textPart"
    id: str
    text: str


class ImageUrlPart(Frozen):
    """An image at a URL."""

    type: Literal["imageUrlPart"] = "imageUrlPart"
    id: str
    url: str
    mime_type: str


class ImageInlinePart(Frozen):
    """An image as base64."""

    type: Literal["imageInlinePart"] = "imageInlinePart"
    id: str
    encoded_data: str
    mime_type: str


class ImageBinaryPart(Frozen):
    """An image as a string of bytes."""

    type: Literal["imageBinaryPart"] = "imageBinaryPart"
    id: str
    data: str
    mime_type: str


class FileUrlPart(Frozen):
    """A file at a URL."""

    type: Literal["fileUrlPart"] = "fileUrlPart"
    id: str
    url: str
    mime_type: str


class FileInlinePart(Frozen):
    """A file as base64."""

    type: Literal["fileInlinePart"] = "fileInlinePart"
    id: str
    encoded_data: str
    mime_type: str


class FileBinaryPart(Frozen):
    """A file as a string of bytes."""

    type: Literal["fileBinaryPart"] = "fileBinaryPart"
    id: str
    data: str
    mime_type: str


class ThinkingPart(Frozen):
    """Reasoning of the model, with the signature that lets it be replayed."""

    type: Literal["thinkingPart"] = "thinkingPart"
    id: str
    thinking: str
    signature: str | None = None


class ToolCallPart(Frozen):
    """The model asks for a tool."""

    type: Literal["toolCallPart"] = "toolCallPart"
    id: str
    tool_call_id: str
    tool_name: str
    args: Any


ResultPart = Annotated[TextPart | ImageInlinePart | FileInlinePart, Field(discriminator="type")]


class ToolResultPart(Frozen):
    """What a tool answered."""

    type: Literal["toolResultPart"] = "toolResultPart"
    id: str
    tool_call_id: str
    tool_name: str
    contents: tuple[ResultPart, ...]
    is_error: bool | None = None


UserPart = Annotated[
    TextPart | ImageUrlPart | ImageInlinePart | ImageBinaryPart | FileUrlPart | FileInlinePart | FileBinaryPart,
    Field(discriminator="type"),
]
ExpertPart = Annotated[TextPart | ToolCallPart | ThinkingPart, Field(discriminator="type")]


class InstructionMessage(Frozen):
    """The system prompt; always the first message, cached at the provider."""

    type: Literal["instructionMessage"] = "instructionMessage"
    id: str
    contents: tuple[TextPart, ...]
    cache: bool | None = None


class UserMessage(Frozen):
    """What the user, or the runtime in the user's place, says."""

    type: Literal["userMessage"] = "userMessage"
    id: str
    contents: tuple[UserPart, ...]
    cache: bool | None = None


class ExpertMessage(Frozen):
    """What the model says: thinking parts, then text, then tool calls."""

    type: Literal["expertMessage"] = "expertMessage"
    id: str
    contents: tuple[ExpertPart, ...]
    cache: bool | None = None


class ToolMessage(Frozen):
    """All results of one step."""

    type: Literal["toolMessage"] = "toolMessage"
    id: str
    contents: tuple[ToolResultPart, ...]
    cache: bool | None = None


Message = Annotated[InstructionMessage | UserMessage | ExpertMessage | ToolMessage, Field(discriminator="type")]


class ToolCall(Frozen):
    """A call the model made; `skill_name` is the skill's key, or the delegate's name."""

    id: Annotated[str, Field(min_length=1, max_length=255)]
    skill_name: Annotated[str, Field(min_length=1, max_length=255)]
    tool_name: Annotated[str, Field(min_length=1, max_length=255)]
    args: dict[str, Any]


class ToolResult(Frozen):
    """The answer to a ToolCall of the same id; `skill_name` is `delegate/<expert key>` for a delegate's answer."""

    id: Annotated[str, Field(min_length=1, max_length=255)]
    skill_name: str
    tool_name: str
    result: tuple[ResultPart, ...]
    is_error: bool | None = None
