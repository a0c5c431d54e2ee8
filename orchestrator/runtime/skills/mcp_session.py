"""An open connection to an MCP server, whatever carries it (spec 5.5, 6)."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from mcp import Client, MCPError
from mcp_types import REQUEST_TIMEOUT, Tool

from orchestrator.runtime.skills.content import to_parts
from orchestrator.runtime.surroundings import Surroundings
from orchestrator.wire.generation import ToolDefinition
from orchestrator.wire.message import NAME_CHARACTERS, ResultPart, TextPart, ToolCall, ToolResult
from orchestrator.wire.platform_event import SkillConnected
from orchestrator.wire.skill import SseSkill, StdioSkill

_PAGES = 100


@dataclass(frozen=True, slots=True)
class Patience:
    """How many seconds a skill has to start, which may install it, and to answer one call (spec 5.5)."""

    start: float = 120.0
    call: float = 60.0


@dataclass(frozen=True, slots=True)
class Connection:
    """A connection to a skill's server. `why` says what the way there did to a call, None if the server failed it."""

    skill: StdioSkill | SseSkill
    client: Client
    why: Callable[[MCPError], Awaitable[str | None]]
    call_seconds: float


class McpSession:
    """The tools of one skill.

    Args:
        connection: where they are called.
        tools: what the server offers; `pick` and `omit` are applied here (E4).
        part_id: gives an id for each part of a result.
    """

    def __init__(self, connection: Connection, tools: Sequence[Tool], part_id: Callable[[], str]) -> None:
        skill = connection.skill
        self._connection = connection
        self._part_id = part_id
        self._tools = {
            tool.name: ToolDefinition(name=tool.name, description=tool.description, input_schema=tool.input_schema)
            for tool in tools
            if tool.name not in skill.omit
            and (not skill.pick or tool.name in skill.pick)
            # No event could tell of a call to another.
            and 0 < len(tool.name) <= NAME_CHARACTERS
        }

    def tools(self) -> tuple[ToolDefinition, ...]:
        """The tools it offers, after `pick` and `omit`."""
        return tuple(self._tools.values())

    async def call(self, call: ToolCall) -> ToolResult:
        """Run one tool. Whatever goes wrong in it is a result that the model can read, never an exception."""
        skill, tool = self._connection.skill.name, call.tool_name
        if tool not in self._tools:
            return self._failed(call, f"skill {skill!r} has no tool {tool!r}; use one of: {', '.join(self._tools)}")
        try:
            async with asyncio.timeout(self._connection.call_seconds):
                answer = await self._connection.client.call_tool(tool, call.args)
            parts = to_parts(answer.content, call.args, self._part_id)
        except (MCPError, TimeoutError) as error:
            return self._failed(call, await self._explain(f"tool {tool!r} of skill {skill!r}", error))
        except Exception as error:  # noqa: BLE001 - a server is not trusted to keep to the protocol
            sentence = f"tool {tool!r} of skill {skill!r} gave an answer that the protocol does not allow: {error}"
            return self._failed(call, sentence)
        return _result(call, parts, is_error=answer.is_error)

    def _failed(self, call: ToolCall, sentence: str) -> ToolResult:
        return _result(call, (TextPart(id=self._part_id(), text=f"Error: {sentence}"),), is_error=True)

    async def _explain(self, named: str, error: MCPError | TimeoutError) -> str:
        if isinstance(error, TimeoutError) or error.code == REQUEST_TIMEOUT:
            seconds = self._connection.call_seconds
            return f"{named} gave no answer within {seconds:g} s; ask for less, or go on without it"
        why = await self._connection.why(error)
        return f"calling {named}: {error}" if why is None else f"{named} did not answer: {why}"


async def discover(client: Client) -> AsyncIterator[Tool]:
    """List the tools of a server, page by page."""
    cursor = None
    for _ in range(_PAGES):
        page = await client.list_tools(cursor=cursor)
        for tool in page.tools:
            yield tool
        cursor = page.next_cursor
        if cursor is None:
            return


def tell(skill: StdioSkill | SseSkill, client: Client, times: Sequence[float], surroundings: Surroundings) -> None:
    """Write that a skill is connected. `times` are seconds: when it began, was spawned, shook hands, told its tools."""
    spawn, handshake, discovery = ((after - before) * 1000 for before, after in pairwise(times))
    info = client.server_info
    surroundings.emitter.emit(
        SkillConnected,
        skill_name=skill.name,
        server_info=None if info is None else {"name": info.name, "version": info.version},
        spawn_duration_ms=spawn,
        handshake_duration_ms=handshake,
        tool_discovery_duration_ms=discovery,
        connect_duration_ms=spawn + handshake,
        total_duration_ms=spawn + handshake + discovery,
    )


def innermost(error: Exception) -> Exception:
    """What went wrong, without the groups that the SDK's task groups wrap around it."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error


def _result(call: ToolCall, parts: tuple[ResultPart, ...], *, is_error: bool | None) -> ToolResult:
    return ToolResult(
        id=call.id,
        skill_name=call.skill_name,
        tool_name=call.tool_name,
        result=parts,
        is_error=True if is_error else None,
    )
