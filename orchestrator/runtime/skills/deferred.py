"""A skill whose tools are known from a lock: its server starts while the model is asked for the first time (E12)."""

import asyncio
from collections.abc import Callable, Iterable

from orchestrator.runtime.errors import SkillError
from orchestrator.runtime.skills import SkillSession
from orchestrator.wire.generation import ToolDefinition
from orchestrator.wire.message import TextPart, ToolCall, ToolResult
from orchestrator.wire.skill import SseSkill, StdioSkill


class DeferredSession:
    """The tools of one skill before anybody has called them.

    Args:
        skill: whose `pick` and `omit` apply.
        known: what the lock says it offers.
        opened: the session, or why there is none, some time after `wanted` was set; a call sets it too.
        part_id: gives an id for each part of a result.
    """

    def __init__(
        self,
        skill: StdioSkill | SseSkill,
        known: Iterable[ToolDefinition],
        opened: asyncio.Future[SkillSession | SkillError],
        part_id: Callable[[], str],
    ) -> None:
        self._tools = tuple(
            tool for tool in known if tool.name not in skill.omit and (not skill.pick or tool.name in skill.pick)
        )
        self._opened = opened
        self._part_id = part_id
        self.wanted = asyncio.Event()

    def tools(self) -> tuple[ToolDefinition, ...]:
        """The tools it offers, after `pick` and `omit`."""
        return self._tools

    async def call(self, call: ToolCall) -> ToolResult:
        """Run one tool, on a server that is started for it. One that does not start is a result too."""
        self.wanted.set()
        opened = await asyncio.shield(self._opened)
        if not isinstance(opened, SkillError):
            return await opened.call(call)
        text = TextPart(id=self._part_id(), text=f"Error: {opened}")
        return ToolResult(
            id=call.id, skill_name=call.skill_name, tool_name=call.tool_name, result=(text,), is_error=True
        )
