"""An open connection to an MCP server, over any transport.

See docs/reference/perstack.md#calling-tools.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from orchestrator.runtime.mcp.protocol import McpError
from orchestrator.runtime.mcp.results import (
    AudioContent,
    BlobResource,
    Content,
    ImageContent,
    ResourceLink,
    TextContent,
    TextResource,
    Tool,
)
from orchestrator.runtime.mcp.session import Session
from orchestrator.runtime.tool_context import ToolContext
from orchestrator.runtime.tools import to_json
from orchestrator.wire.event import SkillConnected
from orchestrator.wire.generation import ToolDefinition
from orchestrator.wire.message import (
    NAME_CHARACTERS,
    FileInlinePart,
    ImageInlinePart,
    ResultPart,
    TextPart,
    ToolCall,
    ToolResult,
)
from orchestrator.wire.skill import SseSkill, StdioSkill


@dataclass(frozen=True, slots=True)
class SkillTimeouts:
    """Seconds for a skill to start, which may include an installation, and to answer one call.

    See docs/reference/perstack.md#calling-tools.
    """

    start: float = 120.0
    call: float = 60.0


@dataclass(frozen=True, slots=True)
class McpConnection:
    """A connection to a skill's server.

    `explain` returns why the transport failed; None if the server itself failed.
    """

    skill: StdioSkill | SseSkill
    client: Session
    explain: Callable[[McpError], Awaitable[str | None]]
    call_seconds: float


class McpSession:
    """The tools of one skill.

    Args:
        connection: the connection for their calls.
        tools: the tools of the server; `pick` and `omit` are applied here.
        new_part_id: returns an id for each part of a result.
    """

    def __init__(self, connection: McpConnection, tools: Sequence[Tool], new_part_id: Callable[[], str]) -> None:
        skill = connection.skill
        self._connection = connection
        self._new_part_id = new_part_id
        self._tools = {
            tool.name: ToolDefinition(name=tool.name, description=tool.description, input_schema=tool.input_schema)
            for tool in tools
            if tool.name not in skill.omit
            and (not skill.pick or tool.name in skill.pick)
            # Events have no room for longer names.
            and 0 < len(tool.name) <= NAME_CHARACTERS
        }

    def tools(self) -> tuple[ToolDefinition, ...]:
        """The tools of this skill, after `pick` and `omit`."""
        return tuple(self._tools.values())

    async def call(self, call: ToolCall) -> ToolResult:
        """Run one tool. Every failure is a result that the model can read, never an exception."""
        skill, tool = self._connection.skill.name, call.tool_name
        if tool not in self._tools:
            return self._failed(call, f"skill {skill!r} has no tool {tool!r}; use one of: {', '.join(self._tools)}")
        try:
            async with asyncio.timeout(self._connection.call_seconds):
                answer = await self._connection.client.call_tool(tool, call.args)
            parts = to_parts(answer.content, call.args, self._new_part_id)
        except (McpError, TimeoutError) as error:
            return self._failed(call, await self._explain(f"tool {tool!r} of skill {skill!r}", error))
        except Exception as error:  # noqa: BLE001 - a server may violate the protocol
            sentence = f"tool {tool!r} of skill {skill!r} gave an answer that the protocol does not allow: {error}"
            return self._failed(call, sentence)
        return _result(call, parts, is_error=answer.is_error)

    def _failed(self, call: ToolCall, sentence: str) -> ToolResult:
        return _result(call, (TextPart(id=self._new_part_id(), text=f"Error: {sentence}"),), is_error=True)

    async def _explain(self, named: str, error: McpError | TimeoutError) -> str:
        if isinstance(error, TimeoutError) or error.is_timeout:
            seconds = self._connection.call_seconds
            return f"{named} gave no answer within {seconds:g} s; ask for less, or go on without it"  # words: a result
        why = await self._connection.explain(error)
        return f"calling {named}: {error}" if why is None else f"{named} did not answer: {why}"


def emit_connected(skill: StdioSkill | SseSkill, client: Session, times: Sequence[float], context: ToolContext) -> None:
    """Emit that a skill is connected. `times` are seconds: start, process started, handshake done, tools listed."""
    spawn, handshake, discovery = ((after - before) * 1000 for before, after in pairwise(times))
    info = client.server
    context.emitter.emit(
        SkillConnected,
        skill_name=skill.name,
        server_info=None if info is None else {"name": info.name, "version": info.version},
        spawn_duration_ms=spawn,
        handshake_duration_ms=handshake,
        tool_discovery_duration_ms=discovery,
        connect_duration_ms=spawn + handshake,
        total_duration_ms=spawn + handshake + discovery,
    )


def _result(call: ToolCall, parts: tuple[ResultPart, ...], *, is_error: bool | None) -> ToolResult:
    return ToolResult(
        id=call.id,
        skill_name=call.skill_name,
        tool_name=call.tool_name,
        result=parts,
        is_error=True if is_error else None,
    )


def to_parts(
    content: Sequence[Content], args: Mapping[str, Any], new_part_id: Callable[[], str]
) -> tuple[ResultPart, ...]:
    """Convert an answer to parts; content that cannot be shown to the model becomes an explaining text."""
    if not content:
        return (TextPart(id=new_part_id(), text=f"The tool returned nothing. Its arguments were: {to_json(args)}"),)
    return tuple(_part(block, new_part_id()) for block in content)


def _part(block: Content, part_id: str) -> ResultPart:
    match block:
        case ImageContent(data=data, mime_type=mime_type) if data and mime_type:
            return ImageInlinePart(id=part_id, encoded_data=data, mime_type=mime_type)
        case BlobResource(blob=blob, mime_type=mime_type) if blob and mime_type:
            return FileInlinePart(id=part_id, encoded_data=blob, mime_type=mime_type)
        case _:
            return TextPart(id=part_id, text=_text(block))


def _text(block: Content) -> str:
    match block:
        case TextContent(text=text) | TextResource(text=text):
            return text or "Error: No content"
        case ImageContent():
            return "Error: the tool returned an image without data or type"
        case BlobResource(uri=uri):
            return f"Error: the resource {uri} came without data or type"
        case AudioContent(mime_type=mime_type):
            return f"[audio of type {mime_type} was left out: it cannot be shown]"
        case ResourceLink(uri=uri):
            return f"[a link to the resource {uri} was left out: it is not followed]"
