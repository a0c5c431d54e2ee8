"""Anthropic's Messages API."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from orchestrator.http.headers import merged
from orchestrator.providers import failures, http_client
from orchestrator.providers.anthropic.reply import AnthropicReplyStream, error_name
from orchestrator.providers.anthropic.request import request_body
from orchestrator.providers.api import ModelRequest, OnDelta, Provider, ProviderSetting
from orchestrator.providers.call import Call, Refusal
from orchestrator.providers.setting import HttpSetting
from orchestrator.providers.spec import ModelSize, ProbeRequest, ProviderSpec
from orchestrator.wire.generation import Failure, Reply

if TYPE_CHECKING:
    from orchestrator.providers.api_client import ApiClient

_KEY = "ANTHROPIC_API_KEY"
_BASE_URL = "ANTHROPIC_BASE_URL"
_DEFAULT_BASE_URL = "https://api.anthropic.com"
_VERSION = "2026-10-21"
"""The version of the API whose format is in this package: that of Anthropic's SDK (tests/judges)."""


@asynccontextmanager
async def connect(setting: ProviderSetting) -> AsyncIterator[Provider]:
    """Open a client of the API.

    Raises:
        ConfigError: the base URL or the headers are not valid.
        MissingEnvError: ANTHROPIC_API_KEY has no value.
    """
    key = http_client.secret(setting, _KEY)
    url = http_client.base_url(setting, _BASE_URL, _DEFAULT_BASE_URL)
    given = http_client.headers(setting)
    async with http_client.open_client(setting, url, _headers(key, given), (key, *given.values())) as client:
        yield Anthropic(client)


def probe(setting: ProviderSetting) -> ProbeRequest:
    """List one model, which is free (https://docs.claude.com/en/api/models-list)."""
    key = http_client.secret(setting, _KEY)
    return ProbeRequest(
        url=f"{http_client.base_url(setting, _BASE_URL, _DEFAULT_BASE_URL)}/v1/models",
        variable=_KEY,
        key=key,
        headers=_headers(key, http_client.headers(setting)),
        query={"limit": "1"},
    )


def _headers(key: str, given: Mapping[str, str]) -> dict[str, str]:
    return merged({"Authorization": f"Bearer {key}", "anthropic-version": _VERSION}, given)


class Anthropic:
    """The Messages API."""

    def __init__(self, client: "ApiClient") -> None:
        self._client = client

    async def generate(self, request: ModelRequest, on_delta: OnDelta) -> Reply | Failure:
        """Call the model once and stream its reply."""
        call = Call("/v1/messages", {**request_body(request), "stream": True}, request.timeout, _refused)
        return await self._client.reply(call, AnthropicReplyStream(on_delta))


def _refused(refusal: Refusal) -> Failure:
    kind = refusal.error.get("type")
    failure = failures.refused(refusal.status, refusal.message, refusal.headers, key=_KEY)
    if failure.name == failures.CONTEXT_WINDOW_EXCEEDED or not kind:
        return failure
    # The API's own error type is more precise than the status.
    return failure.with_(name=error_name(str(kind)))


_LARGE, _MIDDLE, _SMALL = ModelSize(200_000, 32_000), ModelSize(200_000, 64_000), ModelSize(200_000, 8192)

SPEC = ProviderSpec(
    name="anthropic",
    connect=connect,
    settings=HttpSetting,
    required=(_KEY,),
    probe=probe,
    models={
        "claude-opus-4-5": _LARGE,
        "claude-opus-4-1": _LARGE,
        "claude-opus-4-20250514": _LARGE,
        "claude-sonnet-4-5": _MIDDLE,
        "claude-sonnet-4-20250514": _MIDDLE,
        "claude-3-7-sonnet-20250219": _MIDDLE,
        "claude-haiku-4-5": _SMALL,
        "claude-3-5-haiku-latest": _SMALL,
    },
    tiers={"low": "claude-haiku-4-5", "middle": "claude-sonnet-4-5", "high": "claude-opus-4-5"},
)
