"""Anthropic's Messages API, through its SDK."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from importlib import import_module
from typing import TYPE_CHECKING, cast

from orchestrator.errors import ConfigError
from orchestrator.providers import ModelRequest, OnDelta, Provider, ProviderSetting, endpoint, failures
from orchestrator.providers.anthropic_reply import ReplyStream, error_name
from orchestrator.providers.anthropic_request import body
from orchestrator.wire.generation import Failure, Reply

if TYPE_CHECKING:
    from anthropic import APIStatusError, AsyncAnthropic
    from anthropic._streaming import ServerSentEvent

_KEY = "ANTHROPIC_API_KEY"
_BASE_URL = "ANTHROPIC_BASE_URL"
_DEFAULT_BASE_URL = "https://api.anthropic.com"


@asynccontextmanager
async def connect(setting: ProviderSetting) -> AsyncIterator[Provider]:
    """Make a client of the API.

    Raises:
        ConfigError: the SDK is not installed, or the base URL or the headers are not usable.
        MissingEnvError: ANTHROPIC_API_KEY has no value.
    """
    key = endpoint.secret(setting, _KEY)
    base_url = endpoint.base_url(setting, _BASE_URL, _DEFAULT_BASE_URL)
    headers = endpoint.headers(setting)
    try:
        # The import takes over a second; meanwhile Sandboxes start.
        client = await asyncio.to_thread(_client, key, base_url, headers, setting.env)
    except ImportError as error:
        message = "provider anthropic needs its SDK: install perstack-orch[anthropic]"
        raise ConfigError(message) from error
    async with client:
        yield Anthropic(client, secrets=(key, *headers.values()))


class Anthropic:
    """The Messages API."""

    def __init__(self, client: "AsyncAnthropic", secrets: tuple[str, ...]) -> None:
        self._client = client
        self._secrets = secrets

    async def generate(self, request: ModelRequest, on_delta: OnDelta) -> Reply | Failure:
        """Call the model once; its reply is streamed."""
        # Installed and imported by now: `connect` did both.
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

        arriving = ReplyStream(on_delta)
        calls = self._client.messages.with_streaming_response
        async with calls.create(**body(request), stream=True, timeout=request.timeout) as response:
            events = cast("AsyncGenerator[ServerSentEvent]", AsyncStream.raw_events(response.http_response))
            async with aclosing(events):
                async for event in events:
                    if event.data:
                        arriving.take(json.loads(event.data))
                    if arriving.over:
                        break
        return arriving.outcome()


def _client(key: str, base_url: str, headers: Mapping[str, str], env: Mapping[str, str]) -> "AsyncAnthropic":
    client: AsyncAnthropic = import_module("anthropic").AsyncAnthropic(
        # An explicit key keeps the SDK from looking for others in the environment and in profile files.
        api_key=key,
        base_url=base_url,
        default_headers=headers,
        max_retries=0,
        open_telemetry=False,
        http_client=endpoint.http_client(base_url, env),
    )
    return client


def _refused(error: "APIStatusError") -> Failure:
    said = error.api_message or f"no reason given ({type(error).__name__})"
    failure = failures.refused(error.status_code, said, error.response.headers, key=_KEY)
    if failure.name == failures.CONTEXT_WINDOW_EXCEEDED or not error.type:
        return failure
    # The API's own word for it tells more than the status does.
    return failure.with_(name=error_name(error.type))
