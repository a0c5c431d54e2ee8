"""A skill whose tools are known from the lock file: its server starts during the first model call."""

import asyncio
from collections.abc import Callable, Iterable

from orchestrator.runtime.errors import SkillError
from orchestrator.runtime.skills import SkillSession
from orchestrator.wire.generation import ToolDefinition
from orchestrator.wire.message import TextPart, ToolCall, ToolResult
from orchestrator.wire.skill import SseSkill, StdioSkill


class DeferredSession:
    """The tools of one skill before its server has started.

    Args:
        skill: the skill, with its `pick` and `omit`.
        known: its tools according to the lock file.
        opened: the session, or the reason why it failed, some time after `needed` was set; a call sets it too.
        new_part_id: returns an id for each part of a result.
    """

    def __init__(
        self,
        skill: StdioSkill | SseSkill,
        known: Iterable[ToolDefinition],
        opened: asyncio.Future[SkillSession | SkillError],
        new_part_id: Callable[[], str],
    ) -> None:
        self._tools = tuple(
            tool for tool in known if tool.name not in skill.omit and (not skill.pick or tool.name in skill.pick)
        )
        self._opened = opened
        self._new_part_id = new_part_id
        self.needed = asyncio.Event()

    def tools(self) -> tuple[ToolDefinition, ...]:
        """The tools of this skill, after `pick` and `omit`."""
        return self._tools

    async def call(self, call: ToolCall) -> ToolResult:
        """Run one tool, and start the server if needed. A server that does not start is a result too."""
        self.needed.set()
        opened = await asyncio.shield(self._opened)
        if not isinstance(opened, SkillError):
            return await opened.call(call)
        text = TextPart(id=self._new_part_id(), text=f"Error: {opened}")
        return ToolResult(
            id=call.id, skill_name=call.skill_name, tool_name=call.tool_name, result=(text,), is_error=True
        )
