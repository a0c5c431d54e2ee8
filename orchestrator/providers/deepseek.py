"""DeepSeek, through the Chat Completions API."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from orchestrator.providers.api import Provider, ProviderSetting
from orchestrator.providers.http_client import base_url, headers, secret
from orchestrator.providers.openai.chat import ChatEndpoint, models_request, open_chat
from orchestrator.providers.openai.request import Dialect
from orchestrator.providers.setting import HttpSetting
from orchestrator.providers.spec import ModelSize, ProbeRequest, ProviderSpec

_KEY = "DEEPSEEK_API_KEY"


@asynccontextmanager
async def connect(setting: ProviderSetting) -> AsyncIterator[Provider]:
    """Open a client of the API.

    Raises:
        ConfigError: the base URL or the headers are not valid.
        MissingEnvError: DEEPSEEK_API_KEY has no value.
    """
    async with open_chat(setting, _endpoint(setting), Dialect(_KEY, replays_reasoning=True)) as provider:
        yield provider


def probe(setting: ProviderSetting) -> ProbeRequest:
    """List the models (https://api-docs.deepseek.com/api/list-models)."""
    endpoint = _endpoint(setting)
    return models_request(endpoint, _KEY, endpoint.key)


def _endpoint(setting: ProviderSetting) -> ChatEndpoint:
    return ChatEndpoint(
        base_url=base_url(setting, "DEEPSEEK_BASE_URL", "https://api.deepseek.com"),
        key=secret(setting, _KEY),
        headers=headers(setting),
    )


SPEC = ProviderSpec(
    name="deepseek",
    connect=connect,
    settings=HttpSetting,
    required=(_KEY,),
    probe=probe,
    models={"deepseek-chat": ModelSize(128_000, 8192), "deepseek-reasoner": ModelSize(128_000, 64_000)},
)
