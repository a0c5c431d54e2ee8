"""The whole perstack.toml, and all problems in it (docs/reference/perstack.md#top-level-keys)."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AfterValidator, Field, PlainValidator, ValidationError

from orchestrator.config.config import (
    DEFAULT_ENV_PATH,
    DEFAULT_MAX_RETRIES,
    DEFAULT_MAX_STEPS,
    DEFAULT_REASONING_BUDGET,
    DEFAULT_TIMEOUT_MS,
)
from orchestrator.config.expert_table import ExpertName, ExpertTable
from orchestrator.config.problems import Problem, close_match, from_validation
from orchestrator.config.provider_table import ChosenProvider, read_provider
from orchestrator.config.reasoning import REASONING_BUDGET, is_reasoning_budget
from orchestrator.config.table import KnownKeys, Table
from orchestrator.wire.expert import ExpertKey

_SUPPORTED_RUNTIMES = ("docker", "local")
_OTHER_RUNTIMES = ("cursor", "claude-code", "gemini")


def _runtime(name: str) -> str:
    if name in _OTHER_RUNTIMES:
        message = f'runtime "{name}" is not supported: it cannot run in a Sandbox; use "docker"'
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

    provider: Any = None
    """Left as it is; `read_provider` checks it."""
    model: str | None = Field(None, min_length=1)
    reasoning_budget: Annotated[str | int, PlainValidator(_reasoning_budget)] = DEFAULT_REASONING_BUDGET
    runtime: Annotated[str, AfterValidator(_runtime)] | None = None
    max_steps: int = Field(DEFAULT_MAX_STEPS, ge=1)
    max_retries: int = Field(DEFAULT_MAX_RETRIES, ge=0)
    timeout: int = Field(DEFAULT_TIMEOUT_MS, ge=1)
    experts: dict[ExpertName, ExpertTable] = Field({})
    perstack_api_base_url: Annotated[str, AfterValidator(_https)] | None = None
    perstack_base_skill_command: list[str] | None = None
    env_path: list[str] = Field(list(DEFAULT_ENV_PATH))


@dataclass(frozen=True, slots=True)
class Checked:
    """A parsed file: its document and provider, valid if it has no `problems`, and its `unknown` keys."""

    document: Document | None
    provider: ChosenProvider | None
    problems: tuple[Problem, ...]
    unknown: tuple[Problem, ...]


def validate(raw: dict[str, Any]) -> Checked:
    """Check a parsed file."""
    known = KnownKeys()
    provider, problems = read_provider(raw, known)
    document = None
    try:
        document = Document.model_validate(raw, context=known)
    except ValidationError as error:
        problems += from_validation(error)
    problems += _unknown_delegates(raw)
    unknown = tuple(Problem.of_unknown_key(path, keys, Document.keys()) for path, keys in known.unknown(raw))
    return Checked(None if problems else document, provider, tuple(problems), unknown)


def _unknown_delegates(raw: dict[str, Any]) -> Iterator[Problem]:
    """Find delegates that the file does not declare, even if other parts of the file are invalid."""
    experts = _table(raw.get("experts"))
    for key, expert in experts.items():
        delegates = _table(expert).get("delegates")
        for index, delegate in enumerate(delegates if isinstance(delegates, list) else ()):
            if delegate not in experts and _is_key(delegate):
                suggestion = close_match(delegate, experts)
                hint = f"; did you mean {suggestion!r}?" if suggestion else ""
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
