"""The description of a provider, by which it is found, configured and opened."""

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from orchestrator.providers.api import Provider, ProviderSetting

if TYPE_CHECKING:
    from pydantic import BaseModel

Tier = Literal["low", "middle", "high"]

_REFUSALS = frozenset({401, 403})


@dataclass(frozen=True, slots=True)
class ModelSize:
    """Tokens of one model: `window` for a whole conversation, `output` for one reply, reasoning included."""

    window: int
    output: int | None = None


def is_refusal(status: int, message: str) -> bool:  # noqa: ARG001 - the default of ProbeRequest.is_refusal
    """Whether an API refuses the key: HTTP 401 or 403."""
    return status in _REFUSALS


@dataclass(frozen=True, slots=True)
class ProbeRequest:
    """A GET that costs nothing and that the API refuses if the key is wrong.

    `variable` is the variable that has the `key`; both are None for an API without keys. `headers` contain the key.
    `is_refusal` gets the status and the message of an error response, and decides whether the API refuses the key.
    """

    url: str
    variable: str | None = None
    key: str | None = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    query: Mapping[str, str] = field(default_factory=dict)
    is_refusal: Callable[[int, str], bool] = is_refusal


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderSpec:
    """One provider.

    `connect` opens its API; None if perstack.toml may name it and no Run can use it. `settings` is the pydantic model
    of `[provider.setting]`. `required` are the variables that must have a value; `one_of` maps keys of the setting to
    variables, at least one of which must have a value. `models` are the sizes of known models, `tiers` the model of
    each tier. `probe` makes the request that finds a wrong key before a job starts; without it, the first model call
    finds one.

    A key of the setting in `harmless` cannot change where a request is sent. `address_of` maps a key other than
    `baseUrl` to the URL that its value leads to. A submitted perstack.toml may have no other keys. `files` maps a key
    that names a file, relative to perstack.toml, to its default; a submitted job carries such files under that name.
    """

    name: str
    connect: Callable[[ProviderSetting], AbstractAsyncContextManager[Provider]] | None
    settings: "type[BaseModel]"
    required: tuple[str, ...] = ()
    one_of: Mapping[str, str] = field(default_factory=dict)
    models: Mapping[str, ModelSize] = field(default_factory=dict)
    tiers: Mapping[Tier, str] = field(default_factory=dict)
    harmless: frozenset[str] = frozenset()
    address_of: Mapping[str, Callable[[str], str]] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    probe: Callable[[ProviderSetting], ProbeRequest] | None = None

    def setting_keys(self) -> frozenset[str]:
        """Return the keys that `[provider.setting]` may have, as written in the file."""
        return frozenset(each.alias or name for name, each in self.settings.model_fields.items())

    def read_setting(self, table: Mapping[str, Any]) -> dict[str, Any]:
        """Check a `[provider.setting]`, and return those of its keys that the provider knows.

        Raises:
            pydantic.ValidationError: a value is not valid.
        """
        return self.settings.model_validate(table).model_dump(by_alias=True, exclude_unset=True)
