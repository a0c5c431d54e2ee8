"""Anthropic's Messages API, through its SDK."""

import asyncio
import json
import math
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from importlib import import_module
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from orchestrator.errors import ConfigError, MissingEnvError
from orchestrator.providers import ModelRequest, OnDelta, Provider, ProviderSetting
from orchestrator.providers.anthropic_reply import ReplyStream, broken, error_name
from orchestrator.providers.anthropic_request import body
from orchestrator.wire.generation import Failure, Reply

if TYPE_CHECKING:
    from anthropic import APIStatusError, AsyncAnthropic
    from anthropic._streaming import ServerSentEvent

_KEY = "ANTHROPIC_API_KEY"
_BASE_URL = "ANTHROPIC_BASE_URL"
_DEFAULT_BASE_URL = "https://api.anthropic.com"
_RETRYABLE = frozenset({408, 409, 429})
_SERVER_ERROR = 500
_SECRET_CHARACTERS = 8


@asynccontextmanager
async def connect(setting: ProviderSetting) -> AsyncIterator[Provider]:
    """Make a client of the API.

    Raises:
        ConfigError: the SDK is not installed, or the base URL or the headers are not usable.
        MissingEnvError: ANTHROPIC_API_KEY has no value.
    """
    key = setting.env.get(_KEY)
    if not key:
        message = f"provider anthropic needs {_KEY}: set it in the environment or in an env file"
        raise MissingEnvError(message)
    base_url = _base_url(setting)
    headers = _headers(setting)
    try:
        # The import takes over a second; meanwhile Sandboxes start.
        sdk = await asyncio.to_thread(import_module, "anthropic")
    except ImportError as error:
        message = "provider anthropic needs its SDK: install perstack-orch[anthropic]"
        raise ConfigError(message) from error
    client: AsyncAnthropic = sdk.AsyncAnthropic(
        # An explicit key keeps the SDK from looking for others in the environment and in profile files.
        api_key=key,
        base_url=base_url,
        default_headers=headers,
        max_retries=0,
        open_telemetry=False,
        # A proxy of the environment cannot reach this machine's own loopback.
        http_client=sdk.DefaultAsyncHttpxClient(trust_env=False) if _is_loopback(base_url) else None,
    )
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
            return self._masked(await self._stream(request, on_delta))
        except APIStatusError as error:
            return self._masked(_refused(error))
        except (APITimeoutError, TimeoutException):
            message = f"the model's API was silent for {round(request.timeout * 1000)} ms"
            return Failure(name="Timeout", message=message, is_retryable=True)
        except APIConnectionError as error:
            cause = str(error.__cause__ or error)
            message = f"the model's API at {self._client.base_url.host} could not be reached: {cause}"
            return self._masked(Failure(name="ConnectionError", message=message, is_retryable=True))
        except (APIError, HTTPError) as error:
            return self._masked(broken(f"the connection to the model's API broke: {error}"))
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            return self._masked(broken(f"the model's API sent what is not its format: {type(error).__name__}"))

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

    def _masked(self, outcome: Reply | Failure) -> Reply | Failure:
        """The same without a key or header value that the API or a gateway echoed in an error."""
        if isinstance(outcome, Reply):
            return outcome
        message = outcome.message
        for secret in filter(_is_telling, self._secrets):
            message = message.replace(secret, "***")
        return outcome.with_(message=message)


def _is_telling(value: str) -> bool:
    """Whether a value is long enough to be a secret; masking `1` everywhere would hide the error itself."""
    return len(value) >= _SECRET_CHARACTERS


def _refused(error: "APIStatusError") -> Failure:
    status = error.status_code
    hint = f"; check {_KEY}" if status in {401, 403} else ""
    said = error.api_message or f"no reason given ({type(error).__name__})"
    return Failure(
        name=error_name(error.type) if error.type else type(error).__name__,
        message=f"the model's API answered {status}: {said}{hint}",
        status_code=status,
        is_retryable=status in _RETRYABLE or status >= _SERVER_ERROR,
        retry_after_ms=_retry_after_ms(error.response.headers),
    )


def _retry_after_ms(headers: Mapping[str, str]) -> int | None:
    for name, scale in (("retry-after-ms", 1), ("retry-after", 1000)):
        try:
            asked = float(headers.get(name, "")) * scale
        except ValueError:
            continue
        if math.isfinite(asked) and asked >= 0:
            return round(asked)
    return None


def _base_url(setting: ProviderSetting) -> str:
    given = setting.setting.get("baseUrl") or setting.env.get(_BASE_URL) or _DEFAULT_BASE_URL
    url = str(given)
    parts = urlsplit(url)
    if parts.hostname and (parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(url))):
        return url
    message = f"base URL {url!r} of provider anthropic is not usable: use https, or http on loopback"
    raise ConfigError(message)


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _headers(setting: ProviderSetting) -> dict[str, str]:
    headers: Any = setting.setting.get("headers", {})
    if isinstance(headers, Mapping) and all(isinstance(value, str) for value in headers.values()):
        return {str(name): value for name, value in headers.items()}
    message = "provider.setting.headers must be a table of strings"
    raise ConfigError(message)
