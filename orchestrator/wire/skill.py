"""Skills as declared in perstack.toml (docs/reference/perstack.md#skill-tables).

Each value carries its skill's name.
"""

from enum import StrEnum
from typing import Any

from orchestrator.wire.frozen import Frozen, Tagged

BASE_SKILL = "@perstack/base"
"""The reserved name of the built-in tools."""

BASE_TOOLS = (
    "readTextFile",
    "writeTextFile",
    "appendTextFile",
    "editTextFile",
    "listDirectory",
    "createDirectory",
    "deleteFile",
    "deleteDirectory",
    "moveFile",
    "getFileInfo",
    "readImageFile",
    "readPdfFile",
    "healthCheck",
    "exec",
    "todo",
    "clearTodo",
    "attemptCompletion",
)
"""Names of the built-in tools, in the order in which they are offered."""


class SkillTransport(StrEnum):
    """Transports of the Model Context Protocol."""

    STDIO = "stdio"
    HTTP = "http"


class StdioSkill(Tagged, tag="mcpStdioSkill"):
    """An MCP server started as a child process. Exactly one of `package_name` and non-empty `args` is given."""

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


class SseSkill(Tagged, tag="mcpSseSkill"):
    """An MCP server behind a public https endpoint."""

    name: str
    description: str | None = None
    rule: str | None = None
    pick: tuple[str, ...] = ()
    omit: tuple[str, ...] = ()
    endpoint: str
    allowed_domains: tuple[str, ...] = ()


class InteractiveTool(Frozen):
    """A tool whose calls the user answers; `input_schema` is its JSON Schema, parsed."""

    name: str
    description: str | None = None
    input_schema: dict[str, Any]


class InteractiveSkill(Tagged):
    """Tools that stop the Run until the user answers."""

    name: str
    description: str | None = None
    rule: str | None = None
    tools: tuple[InteractiveTool, ...]


Skill = StdioSkill | SseSkill | InteractiveSkill
