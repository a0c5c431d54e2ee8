"""The content of perstack.toml, with every default filled in."""

import dataclasses
import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.config.lock_file import SkillTools
from orchestrator.errors import ConfigError
from orchestrator.wire.expert import Expert

DEFAULT_PROVIDER = "anthropic"
DEFAULT_MODEL = "claude-sonnet-4-5"
DEFAULT_REASONING_BUDGET = "low"
DEFAULT_MAX_STEPS = 100
DEFAULT_MAX_RETRIES = 5
DEFAULT_TIMEOUT_MS = 300_000
DEFAULT_ENV_PATH = (".env", ".env.local")
"""Used if neither perstack.toml nor an option names another (docs/reference/perstack.md#top-level-keys)."""


@dataclass(frozen=True, slots=True)
class Config:
    """One perstack.toml.

    `path` is None for a remote one; `directory` is its directory, or the current one. `provider_setting` is
    `[provider.setting]` with the file's own keys; its headers may be secret. `model` is None if none is named.
    `reasoning_budget` is a level or a number of tokens, `timeout_ms` the milliseconds of one generation. `env_path` is
    relative to the current directory, as in Perstack. `notes` are sentences for the user about what was ignored or
    reinterpreted. `known_tools` are the tools in the lock file next to it, by Expert.
    """

    path: Path | None
    directory: Path
    provider_name: str = DEFAULT_PROVIDER
    provider_setting: Mapping[str, Any] = field(default_factory=dict, repr=False)
    model: str | None = None
    reasoning_budget: str | int = DEFAULT_REASONING_BUDGET
    max_steps: int = DEFAULT_MAX_STEPS
    max_retries: int = DEFAULT_MAX_RETRIES
    timeout_ms: int = DEFAULT_TIMEOUT_MS
    env_path: tuple[str, ...] = DEFAULT_ENV_PATH
    experts: Mapping[str, Expert] = field(default_factory=dict)
    base_skill_command: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()
    known_tools: Mapping[str, SkillTools] = field(default_factory=dict)

    def expert(self, key: str) -> Expert:
        """The Expert with that key; versions are not resolved locally (docs/reference/perstack.md#versions).

        Raises:
            ConfigError: the Expert is not declared; the message lists those that are, similar ones first.
        """
        found = self.experts.get(key)
        if found is not None:
            return found
        file = self.path or "the remote perstack.toml"
        close = difflib.get_close_matches(key, list(self.experts))
        known = ", ".join(dict.fromkeys([*close, *self.experts])) or "no Expert"
        message = f"Expert {key!r} is not in {file}, which declares {known}; the registry is not supported yet"
        raise ConfigError(message)

    def overridden(self, *, provider_name: str | None = None, **given: Any) -> "Config":
        """The same config with the fields that are `given`, which take precedence; None keeps the value of the file.

        `[provider.setting]` belongs to the provider it was written for and is dropped if another is chosen. (Perstack
        applies it to any provider, and so sends one API's key to another's base URL; decision 18.)
        """
        changes = {name: value for name, value in given.items() if value is not None}
        if provider_name not in {None, self.provider_name}:
            changes |= {"provider_name": provider_name, "provider_setting": {}}
        return dataclasses.replace(self, **changes)
