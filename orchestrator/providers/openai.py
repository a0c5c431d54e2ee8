"""OpenAI, and whoever speaks its API at another base URL, such as OpenRouter."""

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from orchestrator.providers import ModelRequest, Provider, ProviderSetting
from orchestrator.providers.endpoint import base_url, headers, option, secret
from orchestrator.providers.openai_chat import Access, open_chat
from orchestrator.providers.openai_request import Dialect

_KEY = "OPENAI_API_KEY"
_LOW, _MEDIUM = 2048, 5000
# The API refuses the option for a model that does not reason. A vendor may stand before the name, as on OpenRouter.
_REASONS = re.compile(r"(?:.*/)?(?:o\d|gpt-oss|codex|gpt-(?:[5-9]|\d\d)(?!.*chat))")


@asynccontextmanager
async def connect(setting: ProviderSetting) -> AsyncIterator[Provider]:
    """Make a client of the API.

    Raises:
        ConfigError: the base URL or the headers are not usable.
        MissingEnvError: OPENAI_API_KEY has no value.
    """
    named = {
        "OpenAI-Organization": option(setting, "organization", "OPENAI_ORGANIZATION"),
        "OpenAI-Project": option(setting, "project", "OPENAI_PROJECT"),
    }
    access = Access(
        base_url=base_url(setting, "OPENAI_BASE_URL", "https://api.openai.com/v1"),
        key=secret(setting, _KEY),
        headers={name: value for name, value in named.items() if value} | headers(setting),
    )
    async with open_chat(setting, access, Dialect(_KEY, reasoning_effort)) as provider:
        yield provider


def reasoning_effort(request: ModelRequest) -> Mapping[str, Any]:
    """The effort that a budget amounts to (spec 10.2), for models that reason."""
    tokens = request.reasoning_tokens
    if tokens <= 0 or not _REASONS.match(request.model):
        return {}
    return {"reasoning_effort": "low" if tokens <= _LOW else "medium" if tokens <= _MEDIUM else "high"}
