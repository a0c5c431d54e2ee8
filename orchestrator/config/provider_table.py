"""`[provider]` and `[provider.setting]` (docs/reference/perstack.md#provider-settings)."""

from dataclasses import dataclass, field
from typing import Any

from pydantic import Field, ValidationError

from orchestrator.config.problems import Problem, from_validation
from orchestrator.config.table import KnownKeys, Table
from orchestrator.plugins import did_you_mean
from orchestrator.providers import PROVIDERS


class ProviderTable(Table):
    """`[provider]`; the provider's own model checks `setting`."""

    provider_name: str
    setting: dict[str, Any] = Field({})


@dataclass(frozen=True, slots=True)
class ChosenProvider:
    """The provider that a file names, and the keys of its setting that it knows."""

    name: str
    setting: dict[str, Any] = field(repr=False)


def read_provider(raw: dict[str, Any], known: KnownKeys) -> tuple[ChosenProvider | None, list[Problem]]:
    """Check the table `[provider]` of a document, which may be missing; its keys are added to `known`."""
    if "provider" not in raw:
        return None, []
    given = raw["provider"]
    name = given.get("providerName") if isinstance(given, dict) else None
    spec = PROVIDERS.find(name) if isinstance(name, str) else None
    if name is not None and spec is None:
        return None, [Problem(("provider", "providerName"), _unknown(str(name)))]
    try:
        table = ProviderTable.model_validate(given, context=known)
    except ValidationError as error:
        return None, list(from_validation(error, ("provider",)))
    if spec is None:
        return None, []
    known.by_table[id(given.get("setting"))] = spec.setting_keys()
    try:
        return ChosenProvider(spec.name, spec.read_setting(table.setting)), []
    except ValidationError as error:
        return None, list(from_validation(error, ("provider", "setting")))


def _unknown(name: str) -> str:
    names = PROVIDERS.names()
    return f"must be one of {', '.join(map(repr, names))}, not {name!r}{did_you_mean(name, names)}"
