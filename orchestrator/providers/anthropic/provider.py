"""Anthropic's Messages API, through Anthropic's SDK."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from importlib import import_module
from typing import TYPE_CHECKING, cast

from orchestrator.providers import failures, http_client
from orchestrator.providers.anthropic.reply import AnthropicReplyStream, error_name
from orchestrator.providers.anthropic.request import request_body
from orchestrator.providers.api import ModelRequest, OnDelta, Provider, ProviderSetting
from orchestrator.providers.setting import HttpSetting
from orchestrator.providers.spec import ModelSize, ProbeRequest, ProviderSpec
from orchestrator.wire.generation import Failure, Reply

if TYPE_CHECKING:
    from anthropic import APIStatusError, AsyncAnthropic
    from anthropic._streaming import ServerSentEvent

_KEY = "ANTHROPIC_API_KEY"
_BASE_URL = "ANTHROPIC_BASE_URL"
_DEFAULT_BASE_URL = "https://api.anthropic.com"
_VERSION = "2026-10-21"
"""The version of the API that the SDK asks for; a test compares both."""


@asynccontextmanager
async def connect(setting: ProviderSetting) -> AsyncIterator[Provider]:
    """Create a client of the API.

    Raises:
        ConfigError: the base URL or the headers are not valid.
        MissingEnvError: ANTHROPIC_API_KEY has no value.
    """
    key = http_client.secret(setting, _KEY)
    base_url = http_client.base_url(setting, _BASE_URL, _DEFAULT_BASE_URL)
    headers = http_client.headers(setting)
    # The import takes over a second; Sandboxes start in the meantime.
    async with await asyncio.to_thread(_client, key, base_url, headers, setting.env) as client:
        yield Anthropic(client, secrets=(key, *headers.values()))


def probe(setting: ProviderSetting) -> ProbeRequest:
    """List one model, which is free (https://docs.claude.com/en/api/models-list)."""
    key = http_client.secret(setting, _KEY)
    return ProbeRequest(
        url=f"{http_client.base_url(setting, _BASE_URL, _DEFAULT_BASE_URL)}/v1/models",
        variable=_KEY,
        key=key,
        headers={"Authorization": f"Bearer {key}", "anthropic-version": _VERSION} | http_client.headers(setting),
        query={"limit": "1"},
    )


class Anthropic:
    """The Messages API."""

    def __init__(self, client: "AsyncAnthropic", secrets: tuple[str, ...]) -> None:
        self._client = client
        self._secrets = secrets

    async def generate(self, request: ModelRequest, on_delta: OnDelta) -> Reply | Failure:
        """Call the model once and stream its reply."""
        # Already installed and imported by `connect`.
        from anthropic import APIConnectionError, APIError, APIStatusError, APITimeoutError  # noqa: PLC0415 slow import
        from httpx2 import HTTPError, TimeoutException  # noqa: PLC0415 slow import

        try:
            outcome = await self._stream(request, on_delta)
        except APIStatusError as error:
            outcome = _refused(error)
        except (APITimeoutError, TimeoutException):
            outcome = failures.silent(request.timeout)
        except APIConnectionError as error:
            outcome = failures.unreachable(self._client.base_url.host, error.__cause__ or error)
        except (APIError, HTTPError) as error:
            outcome = failures.broken(f"the connection to the model's API broke: {error}")
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            outcome = failures.off_format(error)
        return failures.masked(outcome, self._secrets)

    async def _stream(self, request: ModelRequest, on_delta: OnDelta) -> Reply | Failure:
        from anthropic import AsyncStream  # noqa: PLC0415 slow import

        arriving = AnthropicReplyStream(on_delta)
        calls = self._client.messages.with_streaming_response
        async with calls.create(**request_body(request), stream=True, timeout=request.timeout) as response:
            events = cast("AsyncGenerator[ServerSentEvent]", AsyncStream.raw_events(response.http_response))
            async with aclosing(events):
                async for event in events:
                    if event.data:
                        arriving.take(json.loads(event.data))
                    if arriving.is_complete:
                        break
        return arriving.outcome()


def _client(key: str, base_url: str, headers: Mapping[str, str], env: Mapping[str, str]) -> "AsyncAnthropic":
    client: AsyncAnthropic = import_module("anthropic").AsyncAnthropic(
        # With an explicit key the SDK does not search the environment and profile files for another.
        api_key=key,
        base_url=base_url,
        default_headers=headers,
        max_retries=0,
        open_telemetry=False,
        http_client=http_client.http_client(base_url, env),
    )
    return client


def _refused(error: "APIStatusError") -> Failure:
    message = error.api_message or f"no reason given ({type(error).__name__})"
    failure = failures.refused(error.status_code, message, error.response.headers, key=_KEY)
    if failure.name == failures.CONTEXT_WINDOW_EXCEEDED or not error.type:
        return failure
    # The API's own error type is more precise than the status.
    return failure.with_(name=error_name(error.type))


_LARGE, _MIDDLE, _SMALL = ModelSize(200_000, 32_000), ModelSize(200_000, 64_000), ModelSize(200_000, 8192)

SPEC = ProviderSpec(
    name="anthropic",
    connect=connect,
    settings=HttpSetting,
    required=(_KEY,),
    probe=probe,
    sdk=("anthropic",),
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
