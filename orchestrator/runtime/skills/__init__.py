"""Skills inside a Sandbox: what a session offers, and which session answers a tool's name."""

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
        """The tools it offers, after `pick` and `omit`."""

    async def call(self, call: ToolCall) -> ToolResult:
        """Run one tool. Whatever goes wrong in it is a result that the model can read, never an exception."""


class Kind(IntEnum):
    """Who answers a call; the value is its place in the order of calls (spec 3.2)."""

    SKILL = 0
    DELEGATE = 1
    INTERACTIVE = 2


@dataclass(frozen=True, slots=True)
class Route:
    """Where the calls of one tool go; `skill_name` is what its calls carry (spec 4.3)."""

    kind: Kind
    skill_name: str
    definition: ToolDefinition
    session: SkillSession | None = None
    delegate: Delegate | None = None


Routes = Mapping[str, Route]
"""All tools of an Expert by name, in the order in which they are offered."""


def route(
    sessions: Iterable[tuple[str, SkillSession]], expert: Expert, delegates: Iterable[Delegate], *, delegated: bool
) -> Routes:
    """Decide who answers which tool name.

    Where a name is taken twice the first wins, in the order of `sessions` (the base skill leads), interactive skills,
    delegates: the same when offering as when executing, unlike spec 5.3. A delegated Expert cannot ask the user.
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
