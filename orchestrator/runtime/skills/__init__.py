"""Skills inside a Sandbox: the session interface, and the routing of tool names to sessions."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

from orchestrator.wire.expert import Expert
from orchestrator.wire.generation import ToolDefinition
from orchestrator.wire.message import ToolCall, ToolResult
from orchestrator.wire.run import Delegate
from orchestrator.wire.skill import InteractiveSkill

_QUERY_SCHEMA = {"type": "object", "properties": {"query": {"type": "string"}}, "required": ["query"]}


class SkillSession(Protocol):
    """An open connection to a skill."""

    def tools(self) -> tuple[ToolDefinition, ...]:
        """The tools of this skill, after `pick` and `omit`."""

    async def call(self, call: ToolCall) -> ToolResult:
        """Run one tool. Every failure is a result that the model can read, never an exception."""


class Kind(IntEnum):
    """What handles a call; the value is its position in the order of calls.

    See docs/reference/perstack.md#state-events.
    """

    SKILL = 0
    DELEGATE = 1
    INTERACTIVE = 2


@dataclass(frozen=True, slots=True)
class Route:
    """The destination of one tool's calls; `skill_name` is the name in the calls."""

    kind: Kind
    skill_name: str
    definition: ToolDefinition
    session: SkillSession | None = None
    delegate: Delegate | None = None


Routes = Mapping[str, Route]
"""All tools of an Expert by name, in the order in which they are offered to the model."""


def route(
    sessions: Iterable[tuple[str, SkillSession]], expert: Expert, delegates: Iterable[Delegate], *, delegated: bool
) -> Routes:
    """Decide which session, delegate or interactive skill handles each tool name.

    If a name occurs twice, the first wins, in the order of `sessions` (base skill first), interactive skills,
    delegates. Unlike in Perstack, offering and executing use the same order. A delegated Expert cannot ask the user.
    """
    routes: dict[str, Route] = {}
    for skill_name, session in sessions:
        for definition in session.tools():
            routes.setdefault(definition.name, Route(Kind.SKILL, skill_name, definition, session=session))
    interactive = () if delegated else (skill for skill in expert.skills if isinstance(skill, InteractiveSkill))
    for skill in interactive:
        for tool in skill.tools:
            definition = ToolDefinition(name=tool.name, description=tool.description, input_schema=tool.input_schema)
            routes.setdefault(tool.name, Route(Kind.INTERACTIVE, skill.name, definition))
    for delegate in delegates:
        name = delegate.name.rpartition("/")[2]
        definition = ToolDefinition(name=name, description=delegate.description, input_schema=_QUERY_SCHEMA)
        routes.setdefault(name, Route(Kind.DELEGATE, delegate.name, definition, delegate=delegate))
    return routes
