"""DeepSeek."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from orchestrator.providers import Provider, ProviderSetting
from orchestrator.providers.endpoint import base_url, headers, secret
from orchestrator.providers.openai_chat import Access, open_chat
from orchestrator.providers.openai_request import Dialect

_KEY = "DEEPSEEK_API_KEY"


@asynccontextmanager
async def connect(setting: ProviderSetting) -> AsyncIterator[Provider]:
    """Make a client of the API.

    Raises:
        ConfigError: the base URL or the headers are not usable.
        MissingEnvError: DEEPSEEK_API_KEY has no value.
    """
    access = Access(
        base_url=base_url(setting, "DEEPSEEK_BASE_URL", "https://api.deepseek.com"),
        key=secret(setting, _KEY),
        headers=headers(setting),
    )
    async with open_chat(setting, access, Dialect(_KEY, replays_reasoning=True)) as provider:
        yield provider
