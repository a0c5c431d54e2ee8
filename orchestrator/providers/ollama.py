"""Ollama, on the user's own machines: no key, and http is allowed."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

from orchestrator.providers.api import ModelRequest, Provider, ProviderSetting
from orchestrator.providers.http_client import base_url, headers
from orchestrator.providers.openai.chat import ChatEndpoint, models_request, open_chat
from orchestrator.providers.openai.request import Dialect
from orchestrator.providers.setting import SettingTable
from orchestrator.providers.spec import ModelSize, ProbeRequest, ProviderSpec


@asynccontextmanager
async def connect(setting: ProviderSetting) -> AsyncIterator[Provider]:
    """Open a client of the API.

    Raises:
        ConfigError: the base URL or the headers are not valid.
    """
    async with open_chat(setting, _endpoint(setting), Dialect(None, _effort)) as provider:
        yield provider


def probe(setting: ProviderSetting) -> ProbeRequest:
    """List the models (https://docs.ollama.com/api/openai-compatibility)."""
    return models_request(_endpoint(setting), None, None)


def _endpoint(setting: ProviderSetting) -> ChatEndpoint:
    url = base_url(setting, "OLLAMA_BASE_URL", "http://localhost:11434", http_anywhere=True)
    return ChatEndpoint(_chat_url(url), headers=headers(setting))


def _chat_url(url: str) -> str:
    """The URL of the OpenAI-compatible API; Perstack's base URLs name the server, or its `/api`."""
    if not urlsplit(url).path:
        return f"{url}/v1"
    return f"{url.removesuffix('/api')}/v1" if url.endswith("/api") else url


def _effort(request: ModelRequest) -> Mapping[str, Any]:
    """Turn reasoning off if the budget is 0: this format has no `think` (ollama#14820).

    A model that can reason does so by default; a model that cannot rejects every effort except `none`.
    """
    return {} if request.reasoning_tokens > 0 else {"reasoning_effort": "none"}


class OllamaSetting(SettingTable):
    """Ollama runs on the user's own machines, so http is as good as https."""

    base_url: str | None = None
    headers: dict[str, str] | None = None


_GPT_OSS, _GEMMA = ModelSize(131_072, 131_072), ModelSize(128_000)

SPEC = ProviderSpec(
    name="ollama",
    connect=connect,
    settings=OllamaSetting,
    probe=probe,
    models={
        "gpt-oss:20b": _GPT_OSS,
        "gpt-oss:120b": _GPT_OSS,
        "gemma3:1b": ModelSize(32_000),
        "gemma3:4b": _GEMMA,
        "gemma3:12b": _GEMMA,
        "gemma3:27b": _GEMMA,
    },
)
