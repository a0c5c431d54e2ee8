"""The routing of tool names."""

import asyncio

import pytest

from orchestrator.runtime.skills import Kind, route
from orchestrator.wire.generation import ToolDefinition
from orchestrator.wire.message import ToolCall, ToolResult
from orchestrator.wire.run import Delegate
from orchestrator.wire.skill import InteractiveSkill, InteractiveTool
from tests.support.scripted_host import expert


class Offering:
    """A session with these tools, which cannot be called."""

    def __init__(self, *names: str) -> None:
        self._names = names

    def tools(self) -> tuple[ToolDefinition, ...]:
        """Return the tools."""
        return tuple(ToolDefinition(name=name, input_schema={}) for name in self._names)

    async def call(self, call: ToolCall) -> ToolResult:
        """Fail: no test calls a tool."""
        await asyncio.sleep(0)
        return ToolResult(id=call.id, skill_name="s", tool_name=call.tool_name, result=())


ASK = InteractiveSkill(name="user", tools=(InteractiveTool(name="ask", input_schema={}),))
DELEGATES = (
    Delegate(key="@a/x", name="@a/x", version="1.0.0", description="One."),
    Delegate(key="@b/x@2.0.0", name="@b/x", version="2.0.0"),
    Delegate(key="read", name="read", version="1.0.0"),
)


def test_the_first_to_take_a_name_keeps_it() -> None:
    """The order is base skill, other skills, interactive skills, delegates, for offering and for executing."""
    base, other = Offering("read", "exec"), Offering("exec", "ask2")
    routes = route([("base", base), ("other", other)], expert(skills=(ASK,)), DELEGATES, delegated=False)
    assert [(name, taken.kind, taken.skill_name) for name, taken in routes.items()] == [
        ("read", Kind.SKILL, "base"),
        ("exec", Kind.SKILL, "base"),
        ("ask2", Kind.SKILL, "other"),
        ("ask", Kind.INTERACTIVE, "user"),
        ("x", Kind.DELEGATE, "@a/x"),
    ]
    assert routes["x"].definition == ToolDefinition(
        name="x",
        description="One.",
        input_schema={"type": "object", "properties": {"query": {"type": "string"}}, "required": ["query"]},
    )


@pytest.mark.behaviour("D6")
def test_a_delegate_cannot_ask_the_user() -> None:
    """Interactive skills are not offered in a delegated Run."""
    assert list(route([], expert(skills=(ASK,)), (), delegated=True)) == []
    assert list(route([], expert(skills=(ASK,)), (), delegated=False)) == ["ask"]
