"""`[experts."<key>".skills."<skill>"]` (docs/reference/perstack.md#skill-tables)."""

import json
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationInfo, field_validator

from orchestrator.config.domains import parse_endpoint, parse_pattern
from orchestrator.config.environment import is_variable_name
from orchestrator.config.table import Name, Table
from orchestrator.wire.skill import InteractiveSkill, InteractiveTool, SseSkill, StdioSkill

Domain = Annotated[str, AfterValidator(parse_pattern)]


def _variable(name: str) -> str:
    if not is_variable_name(name):
        message = f"{name!r} is not the name of an environment variable"
        raise ValueError(message)
    return name


def _schema(text: str) -> str:
    try:
        schema = json.loads(text)
    except (ValueError, RecursionError) as error:
        message = f"is not JSON: {error}"
        raise ValueError(message) from error
    if not isinstance(schema, dict):
        message = "must be a JSON object"
        raise ValueError(message)  # noqa: TRY004 - pydantic collects ValueError only
    return text


class SkillTable(Table):
    """The fields that all skills have."""

    description: str | None = None
    rule: str | None = None

    def values(self) -> dict[str, Any]:
        """All fields except the type, as the constructor of a Skill takes them."""
        fields = self.model_dump(exclude={"type"})
        return {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}


class StdioTable(SkillTable):
    """An MCP server that is started."""

    type: Literal["mcpStdioSkill"]
    pick: list[str] = Field([])
    omit: list[str] = Field([])
    command: str = Field(min_length=1)
    package_name: str | None = None
    args: list[str] = Field([], validate_default=True)
    required_env: list[Annotated[str, AfterValidator(_variable)]] = Field([])
    allowed_domains: list[Domain] = Field([])
    lazy_init: bool = False

    @field_validator("args", mode="after")
    @classmethod
    def _one_of_two(cls, args: list[str], info: ValidationInfo) -> list[str]:
        named = info.data.get("package_name", "")
        if args and named:
            message = "give packageName or args, not both"
            raise ValueError(message)
        if not args and named is None:
            message = "give packageName or args; without both, the skill cannot start"
            raise ValueError(message)
        return args

    def skill(self, name: str) -> StdioSkill:
        """The skill with that name."""
        return StdioSkill(name=name, **self.values())


class SseTable(SkillTable):
    """An MCP server at a URL."""

    type: Literal["mcpSseSkill"]
    pick: list[str] = Field([])
    omit: list[str] = Field([])
    endpoint: Annotated[str, AfterValidator(parse_endpoint)]
    allowed_domains: list[Domain] = Field([])

    def skill(self, name: str) -> SseSkill:
        """The skill with that name."""
        return SseSkill(name=name, **self.values())


class ToolTable(Table):
    """A tool whose calls the user answers. The table's key is its name; a `name` inside has no effect."""

    name: Any = None
    description: str | None = None
    input_json_schema: Annotated[str, AfterValidator(_schema)]

    def tool(self, name: str) -> InteractiveTool:
        """The tool with that name."""
        return InteractiveTool(name=name, description=self.description, input_schema=json.loads(self.input_json_schema))


class InteractiveTable(SkillTable):
    """Tools whose calls the user answers."""

    type: Literal["interactiveSkill"]
    tools: dict[Name, ToolTable]

    def skill(self, name: str) -> InteractiveSkill:
        """The skill with that name."""
        tools = tuple(table.tool(key) for key, table in self.tools.items())
        return InteractiveSkill(name=name, description=self.description, rule=self.rule, tools=tools)


AnySkillTable = Annotated[StdioTable | SseTable | InteractiveTable, Field(discriminator="type")]
