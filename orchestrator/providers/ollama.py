"""Ollama, on one's own machines: no key, and http is as good as https."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

from orchestrator.providers import ModelRequest, Provider, ProviderSetting
from orchestrator.providers.endpoint import base_url, headers
from orchestrator.providers.openai_chat import Access, open_chat
from orchestrator.providers.openai_request import Dialect


@asynccontextmanager
async def connect(setting: ProviderSetting) -> AsyncIterator[Provider]:
    """Make a client of the API.

    Raises:
        ConfigError: the base URL or the headers are not usable.
    """
    url = base_url(setting, "OLLAMA_BASE_URL", "http://localhost:11434", http_anywhere=True)
    access = Access(_chat_url(url), headers=headers(setting))
    async with open_chat(setting, access, Dialect(None, _effort)) as provider:
        yield provider


def _chat_url(url: str) -> str:
    """Where this format is spoken; Perstack's own base URLs name the server, or its `/api`."""
    if not urlsplit(url).path:
        return f"{url}/v1"
    return f"{url.removesuffix('/api')}/v1" if url.endswith("/api") else url


def _effort(request: ModelRequest) -> Mapping[str, Any]:
    """Have the model not think where that is wanted: this format knows no `think`, which spec 10.2 has (ollama#14820).

    A model that can think does so unasked, and one that cannot refuses every effort but this.
    """
    return {} if request.reasoning_tokens > 0 else {"reasoning_effort": "none"}
