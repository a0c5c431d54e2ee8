"""Skills as declared in perstack.toml (spec 1.5), each carrying its name."""

from typing import Annotated, Any, Literal

from pydantic import Field

from orchestrator.wire.frozen import Frozen

BASE_SKILL = "@perstack/base"
"""The reserved name of the built-in tools."""


class StdioSkill(Frozen):
    """An MCP server started as a child process. Exactly one of `package_name` and non-empty `args` is given."""

    type: Literal["mcpStdioSkill"] = "mcpStdioSkill"
    name: str
    description: str | None = None
    rule: str | None = None
    pick: tuple[str, ...] = ()
    omit: tuple[str, ...] = ()
    command: str
    package_name: str | None = None
    args: tuple[str, ...] = ()
    required_env: tuple[str, ...] = ()
    allowed_domains: tuple[str, ...] = ()
    lazy_init: bool = False


class SseSkill(Frozen):
    """An MCP server behind a public https endpoint."""

    type: Literal["mcpSseSkill"] = "mcpSseSkill"
    name: str
    description: str | None = None
    rule: str | None = None
    pick: tuple[str, ...] = ()
    omit: tuple[str, ...] = ()
    endpoint: str
    allowed_domains: tuple[str, ...] = ()


class InteractiveTool(Frozen):
    """A tool that the user answers; `input_schema` is its JSON Schema, parsed."""

    name: str
    description: str | None = None
    input_schema: dict[str, Any]


class InteractiveSkill(Frozen):
    """Tools that stop the Run until the user answers."""

    type: Literal["interactiveSkill"] = "interactiveSkill"
    name: str
    description: str | None = None
    rule: str | None = None
    tools: tuple[InteractiveTool, ...]


Skill = Annotated[StdioSkill | SseSkill | InteractiveSkill, Field(discriminator="type")]
