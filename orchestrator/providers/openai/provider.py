"""OpenAI, and compatible APIs at other base URLs, such as OpenRouter."""

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from orchestrator.providers.api import ModelRequest, Provider, ProviderSetting
from orchestrator.providers.http_client import base_url, headers, option, secret
from orchestrator.providers.openai.chat import ChatEndpoint, models_request, open_chat
from orchestrator.providers.openai.request import Dialect
from orchestrator.providers.setting import HttpSetting
from orchestrator.providers.spec import ModelSize, ProbeRequest, ProviderSpec

_KEY = "OPENAI_API_KEY"
_LOW, _MEDIUM = 2048, 5000
# The API rejects the option for models that do not reason. A vendor may precede the name, as on OpenRouter.
_REASONS = re.compile(r"(?:.*/)?(?:o\d|gpt-oss|codex|gpt-(?:[5-9]|\d\d)(?!.*chat))")


@asynccontextmanager
async def connect(setting: ProviderSetting) -> AsyncIterator[Provider]:
    """Open a client of the API.

    Raises:
        ConfigError: the base URL or the headers are not valid.
        MissingEnvError: OPENAI_API_KEY has no value.
    """
    async with open_chat(setting, _endpoint(setting), Dialect(_KEY, reasoning_effort)) as provider:
        yield provider


def probe(setting: ProviderSetting) -> ProbeRequest:
    """List the models."""
    endpoint = _endpoint(setting)
    return models_request(endpoint, _KEY, endpoint.key)


def _endpoint(setting: ProviderSetting) -> ChatEndpoint:
    named = {
        "OpenAI-Organization": option(setting, "organization", "OPENAI_ORGANIZATION"),
        "OpenAI-Project": option(setting, "project", "OPENAI_PROJECT"),
    }
    return ChatEndpoint(
        base_url=base_url(setting, "OPENAI_BASE_URL", "https://api.openai.com/v1"),
        key=secret(setting, _KEY),
        headers={name: value for name, value in named.items() if value} | headers(setting),
    )


def reasoning_effort(request: ModelRequest) -> Mapping[str, Any]:
    """The effort that matches the budget (docs/reference/perstack.md#reasoning), for models that reason."""
    tokens = request.reasoning_tokens
    if tokens <= 0 or not _REASONS.match(request.model):
        return {}
    return {"reasoning_effort": "low" if tokens <= _LOW else "medium" if tokens <= _MEDIUM else "high"}


class OpenaiSetting(HttpSetting):
    """OpenAI's own."""

    organization: str | None = None
    project: str | None = None
    name: str | None = None


_GPT_5 = ModelSize(400_000, 128_000)
_O3 = ModelSize(200_000, 10_000)

SPEC = ProviderSpec(
    name="openai",
    connect=connect,
    settings=OpenaiSetting,
    required=(_KEY,),
    probe=probe,
    models={
        "gpt-5": _GPT_5,
        "gpt-5-mini": _GPT_5,
        "gpt-5-nano": _GPT_5,
        "gpt-5-chat-latest": ModelSize(128_000, 16_384),
        "o4-mini": ModelSize(200_000, 100_000),
        "o3": _O3,
        "o3-mini": _O3,
        "gpt-4.1": ModelSize(1_047_576, 32_768),
    },
    tiers={"low": "gpt-5-nano", "middle": "gpt-5-mini", "high": "gpt-5"},
    harmless=frozenset({"organization", "project", "name"}),
)
