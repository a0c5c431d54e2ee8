"""What perstack.toml says, every default filled in."""

import dataclasses
import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.config.lock import SkillTools
from orchestrator.errors import ConfigError
from orchestrator.wire.expert import Expert

DEFAULT_PROVIDER = "anthropic"
DEFAULT_MODEL = "claude-sonnet-4-5"
"""Used where neither perstack.toml nor `--model` names one (spec 1.2)."""


@dataclass(frozen=True, slots=True)
class Config:
    """One perstack.toml.

    `path` is None for a remote one; `directory` is where it is, or the current directory. `provider_setting` is
    `[provider.setting]` with the file's own keys; headers in it may be secret. `model` is None where none is named.
    `reasoning_budget` is a level or tokens, `timeout_ms` milliseconds for one generation. `env_path` is relative to
    the current directory, as in Perstack. `notes` are sentences for the user about what was ignored or reinterpreted.
    `known_tools` is what the lock beside it knows of skills, by Expert.
    """

    path: Path | None
    directory: Path
    provider_name: str = DEFAULT_PROVIDER
    provider_setting: Mapping[str, Any] = field(default_factory=dict, repr=False)
    model: str | None = None
    reasoning_budget: str | int = "low"
    max_steps: int = 100
    max_retries: int = 5
    timeout_ms: int = 300_000
    env_path: tuple[str, ...] = (".env", ".env.local")
    experts: Mapping[str, Expert] = field(default_factory=dict)
    base_skill_command: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()
    known_tools: Mapping[str, SkillTools] = field(default_factory=dict)

    def expert(self, key: str) -> Expert:
        """The Expert of that key; versions are not resolved locally (spec 1.8).

        Raises:
            ConfigError: it is not declared; lists those that are, likely ones first.
        """
        found = self.experts.get(key)
        if found is not None:
            return found
        file = self.path or "the remote perstack.toml"
        close = difflib.get_close_matches(key, list(self.experts))
        known = ", ".join(dict.fromkeys([*close, *self.experts])) or "no Expert"
        message = f"Expert {key!r} is not in {file}, which declares {known}; the registry is not supported yet"
        raise ConfigError(message)

    def overridden(  # noqa: PLR0913 - one for each option of the command line
        self,
        *,
        provider_name: str | None = None,
        model: str | None = None,
        reasoning_budget: str | int | None = None,
        max_steps: int | None = None,
        max_retries: int | None = None,
        timeout_ms: int | None = None,
    ) -> "Config":
        """The same with options of the command line, which go before perstack.toml; None leaves what it says.

        `[provider.setting]` belongs to the provider it was written for and goes with it. (Perstack applies it to
        whichever is chosen, and so sends one API's key to another's base URL; spec 1.3.)
        """
        given: dict[str, Any] = {
            "provider_name": provider_name,
            "model": model,
            "reasoning_budget": reasoning_budget,
            "max_steps": max_steps,
            "max_retries": max_retries,
            "timeout_ms": timeout_ms,
        }
        changes = {name: value for name, value in given.items() if value is not None}
        if provider_name not in {None, self.provider_name}:
            changes["provider_setting"] = {}
        return dataclasses.replace(self, **changes)
