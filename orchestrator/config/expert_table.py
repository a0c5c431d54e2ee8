"""`[experts."<key>"]` (docs/reference/perstack.md#experts).

All checks that Perstack makes at load and at run start are made at load here.
"""

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator

from orchestrator.config.skill_table import AnySkillTable, InteractiveTable
from orchestrator.config.table import Name, Table
from orchestrator.wire.expert import SEMVER, Expert, ExpertKey, is_local_name
from orchestrator.wire.protected_variables import is_protected
from orchestrator.wire.skill import BASE_SKILL, Skill, StdioSkill

_NAME_CHARACTERS = 255
_TAG = re.compile(r"[a-z0-9][a-z0-9_-]*", re.ASCII)
_BASE = StdioSkill(name=BASE_SKILL, command="npx", package_name="@perstack/base")


def _local_name(key: str) -> str:
    if len(key) > _NAME_CHARACTERS or not is_local_name(key):
        message = (
            f"{key!r} is not an Expert's name: name or @org/name, up to {_NAME_CHARACTERS} lower-case letters, "
            "digits, - and _"
        )
        raise ValueError(message)
    return key


def _version(text: str) -> str:
    if SEMVER.fullmatch(text) is None:
        message = f"{text!r} is not a version such as 1.0.0"
        raise ValueError(message)
    return text


def _expert_key(key: str) -> str:
    ExpertKey.parse(key)
    return key


def _tag(text: str) -> str:
    if _TAG.fullmatch(text) is None:
        message = f"{text!r} is not a tag: lower-case letters, digits, - and _"
        raise ValueError(message)
    return text


def _utf16_length(max_length: int) -> AfterValidator:
    def check(text: str) -> str:
        # JavaScript counts UTF-16 code units, and so do files written for Perstack.
        if not 1 <= len(text.encode("utf-16-le", "surrogatepass")) // 2 <= max_length:
            message = f"must have 1 to {max_length} characters"
            raise ValueError(message)
        return text

    return AfterValidator(check)


# Perstack's provider options: accepted so that its files load, ignored here.


class BuiltinProviderSkill(Table):
    """A skill that the provider offers."""

    type: Literal["builtin"]
    skill_id: Literal["pdf", "docx", "pptx", "xlsx"]


class CustomProviderSkill(Table):
    """A skill that the user uploaded to the provider."""

    type: Literal["custom"]
    name: str = Field(min_length=1)
    definition: str = Field(min_length=1)


class WebSearchOptions(Table):
    """`providerToolOptions.webSearch`."""

    max_uses: int | None = Field(None, gt=0)
    allowed_domains: list[str] = Field([])


class WebFetchOptions(Table):
    """`providerToolOptions.webFetch`."""

    max_uses: int | None = Field(None, gt=0)


class FileSearchOptions(Table):
    """`providerToolOptions.fileSearch`."""

    vector_store_ids: list[str] = Field([])
    max_num_results: int | None = Field(None, gt=0)


class ProviderToolOptions(Table):
    """`providerToolOptions`."""

    web_search: WebSearchOptions | None = None
    web_fetch: WebFetchOptions | None = None
    file_search: FileSearchOptions | None = None


class ExpertTable(Table):
    """One Expert."""

    version: Annotated[str, AfterValidator(_version)] = "1.0.0"
    min_runtime_version: Any = None
    description: Annotated[str, _utf16_length(2048)] | None = None
    instruction: Annotated[str, _utf16_length(20_480)]
    skills: dict[Name, AnySkillTable] = Field({})
    delegates: list[Annotated[str, AfterValidator(_expert_key)]] = Field([])
    tags: list[Annotated[str, AfterValidator(_tag)]] = Field([])
    provider_tools: list[str] | None = None
    provider_skills: list[Annotated[BuiltinProviderSkill | CustomProviderSkill, Field(discriminator="type")]] | None = (
        None
    )
    provider_tool_options: ProviderToolOptions | None = None

    @field_validator("skills", mode="after")
    @classmethod
    def _base_is_not_interactive(cls, skills: dict[str, Any]) -> dict[str, Any]:
        if isinstance(skills.get(BASE_SKILL), InteractiveTable):
            message = f"{BASE_SKILL} names the built-in tools; an interactive skill needs another name"
            raise ValueError(message)  # noqa: TRY004 - pydantic collects ValueError only
        return skills

    def expert(self, key: str) -> Expert:
        """Return the Expert `key`. It always has the base skill: where declared, else first.

        In Perstack an Expert that declares only other skills lacks the base skill and fails, which is never intended.
        """
        declared = [_without_ungrantable(table.skill(name)) for name, table in self.skills.items()]
        skills = declared if BASE_SKILL in self.skills else [_BASE, *declared]
        return Expert(
            key=key,
            name=key,
            version=self.version,
            description=self.description,
            instruction=self.instruction,
            skills=tuple(skills),
            delegates=tuple(dict.fromkeys(self.delegates)),
            tags=tuple(self.tags),
        )


ExpertName = Annotated[str, AfterValidator(_local_name)]


def _without_ungrantable(skill: Skill) -> Skill:
    """Drop what skills never get: protected variables, and for the base skill a lazy start.

    See docs/reference/perstack.md#stdio-skills.
    """
    if not isinstance(skill, StdioSkill):
        return skill
    required = tuple(name for name in skill.required_env if not is_protected(name))
    return skill.with_(required_env=required, lazy_init=skill.lazy_init and skill.name != BASE_SKILL)
