"""A whole perstack.toml, and every problem in it (spec 1.2)."""

from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import AfterValidator, Field, PlainValidator, ValidationError

from orchestrator.config.expert_table import ExpertName, ExpertTable
from orchestrator.config.problems import Problem, close_match, from_validation
from orchestrator.config.provider_table import Provider
from orchestrator.config.reasoning import REASONING_BUDGET, is_reasoning_budget
from orchestrator.config.table import KnownKeys, Table
from orchestrator.wire.expert import ExpertKey

_SUPPORTED_RUNTIMES = ("docker", "local")
_OTHER_RUNTIMES = ("cursor", "claude-code", "gemini")


def _runtime(name: str) -> str:
    if name in _OTHER_RUNTIMES:
        message = f'runtime "{name}" is not supported: it cannot be kept in a Sandbox; use "docker"'
        raise ValueError(message)
    if name not in _SUPPORTED_RUNTIMES:
        message = f'must be "docker" or "local", not {name!r}'
        raise ValueError(message)
    return name


def _reasoning_budget(value: Any) -> str | int:
    if not is_reasoning_budget(value):
        message = f"must be {REASONING_BUDGET}"
        raise ValueError(message)
    budget: str | int = value
    return budget


def _https(url: str) -> str:
    if not url.startswith("https://"):
        message = "must be an https URL"
        raise ValueError(message)
    return url


class Document(Table):
    """The top level."""

    provider: Provider | None = None
    model: str | None = Field(None, min_length=1)
    reasoning_budget: Annotated[str | int, PlainValidator(_reasoning_budget)] = "low"
    runtime: Annotated[str, AfterValidator(_runtime)] | None = None
    max_steps: int = Field(100, ge=1)
    max_retries: int = Field(5, ge=0)
    timeout: int = Field(300_000, ge=1)
    experts: dict[ExpertName, ExpertTable] = Field({})
    perstack_api_base_url: Annotated[str, AfterValidator(_https)] | None = None
    perstack_base_skill_command: list[str] | None = None
    env_path: list[str] = Field([".env", ".env.local"])


def validate(raw: dict[str, Any]) -> tuple[Document | None, tuple[Problem, ...], tuple[Problem, ...]]:
    """Check a parsed file: the document if it has no problem, its problems, its unknown keys."""
    known = KnownKeys()
    document, problems = None, list(_unknown_delegates(raw))
    try:
        document = Document.model_validate(raw, context=known)
    except ValidationError as error:
        problems = [*from_validation(error), *problems]
    unknown = tuple(Problem.of_unknown_key(path, keys, Document.keys()) for path, keys in known.unknown(raw))
    return None if problems else document, tuple(problems), unknown


def _unknown_delegates(raw: dict[str, Any]) -> Iterator[Problem]:
    """Delegates that the file does not declare, found even where other things are wrong."""
    experts = _table(raw.get("experts"))
    for key, expert in experts.items():
        delegates = _table(expert).get("delegates")
        for index, delegate in enumerate(delegates if isinstance(delegates, list) else ()):
            if delegate not in experts and _is_key(delegate):
                meant = close_match(delegate, experts)
                hint = f"; did you mean {meant!r}?" if meant else ""
                message = f"Expert {delegate!r} is not in this file, and the registry is not supported yet{hint}"
                yield Problem(("experts", key, "delegates", index), message)


def _table(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _is_key(value: Any) -> bool:
    try:
        ExpertKey.parse(value)
    except (TypeError, ValueError):
        return False
    return True
