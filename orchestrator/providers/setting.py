"""The models of `[provider.setting]` that providers share (docs/reference/perstack.md#provider-settings)."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

from orchestrator.providers.url import parse_base_url

BaseUrl = Annotated[str, AfterValidator(parse_base_url)]
"""An https URL, or http on this machine."""


class SettingTable(BaseModel):
    """A `[provider.setting]`: exact types, camelCase keys. Keys that it does not declare are reported and ignored."""

    model_config = ConfigDict(strict=True, frozen=True, alias_generator=to_camel, hide_input_in_errors=True)


class HttpSetting(SettingTable):
    """How to reach an API over HTTP."""

    base_url: BaseUrl | None = None
    headers: dict[str, str] | None = None
