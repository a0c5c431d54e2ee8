"""perstack.lock: tools of skills as `install` found them, so that a Run does not query the servers.

See docs/reference/perstack.md#perstacklock.
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from orchestrator.disk.plain_file import read_plain
from orchestrator.wire.expert import Expert
from orchestrator.wire.frozen import Frozen
from orchestrator.wire.generation import ToolDefinition
from orchestrator.wire.skill import BASE_SKILL, InteractiveSkill

LOCK_NAME = "perstack.lock"

LOCK_BYTES = 16 * 1024 * 1024
"""The largest lock file: a hundred tools with their schemas take about 100 KiB, so this is enough for many skills."""

SkillTools = Mapping[str, tuple[ToolDefinition, ...]]
"""Tools by the name of their skill."""


class _LockedTool(Frozen):
    skill_name: str
    name: str
    description: str | None = None
    input_schema: dict[str, Any]


class _Lock(Frozen):
    version: Literal["1"]
    generated_at: int
    config_path: str
    experts: dict[str, dict[str, Any]]


def lock_document(
    experts: Mapping[str, Expert], tools: Mapping[str, SkillTools], config_name: str, now: int
) -> dict[str, Any]:
    """Build the content of the lock file for TOML: nulls, as in a schema's `default`, are left out.

    `tools` is by Expert, after `pick` and `omit`; those of interactive skills are added. `now` is Unix milliseconds.
    """
    return {
        "version": "1",
        "generatedAt": now,
        "configPath": config_name,
        "experts": {
            key: _expert_table(expert) | {"toolDefinitions": _tool_tables(expert, tools.get(key, {}))}
            for key, expert in experts.items()
        },
    }


def known_tools(path: Path, experts: Mapping[str, Expert]) -> tuple[dict[str, SkillTools], tuple[str, ...]]:
    """Read a lock file: tools by Expert and skill, and notes about unusable parts; both are empty if it is missing."""
    try:
        lock = msgspec.convert(tomllib.loads(read_plain(path, LOCK_BYTES).decode()), _Lock)
        found = {
            key: msgspec.convert(table.get("toolDefinitions", []), list[_LockedTool])
            for key, table in lock.experts.items()
        }
    except FileNotFoundError:
        return {}, ()
    except (OSError, ValueError, msgspec.MsgspecError, RecursionError):
        return {}, (f"{path} is not a valid lock file, so it is ignored; perstack-orch install writes a new one",)
    tools: dict[str, SkillTools] = {}
    notes: list[str] = []
    for key, expert in experts.items():
        if key not in found:
            continue
        table = {name: value for name, value in lock.experts[key].items() if name != "toolDefinitions"}
        if table == _expert_table(expert):
            tools[key] = _by_skill(expert, found[key])
        else:
            notes.append(
                f"{path} was written for another definition of Expert {key!r}, so its tools are ignored; "
                "perstack-orch install updates it"
            )
    return tools, tuple(notes)


def _by_skill(expert: Expert, found: list[_LockedTool]) -> SkillTools:
    started = [
        skill.name for skill in expert.skills if skill.name != BASE_SKILL and not isinstance(skill, InteractiveSkill)
    ]
    return {
        name: tuple(
            ToolDefinition(name=tool.name, description=tool.description, input_schema=tool.input_schema)
            for tool in found
            if tool.skill_name == name
        )
        for name in started
    }


def _expert_table(expert: Expert) -> dict[str, Any]:
    table: dict[str, Any] = expert.to_plain()
    table["skills"] = {skill["name"]: skill for skill in table["skills"]}
    plain: dict[str, Any] = _without_null(table)
    return plain


def _tool_tables(expert: Expert, tools: SkillTools) -> list[dict[str, Any]]:
    interactive = {
        skill.name: tuple(
            ToolDefinition(name=tool.name, description=tool.description, input_schema=tool.input_schema)
            for tool in skill.tools
        )
        for skill in expert.skills
        if isinstance(skill, InteractiveSkill)
    }
    return [
        _without_null({"skillName": skill_name, **tool.to_plain()})
        for skill_name, definitions in {**tools, **interactive}.items()
        for tool in definitions
    ]


def _without_null(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_null(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, list):
        return [_without_null(inner) for inner in value if inner is not None]
    return value
