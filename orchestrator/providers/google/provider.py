"""Google's Gemini API, through Google's SDK."""

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from http import HTTPStatus
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from orchestrator.providers.api import ModelRequest, OnDelta, Provider, ProviderSetting
from orchestrator.providers.failures import broken, masked, off_format, refused, silent, unreachable
from orchestrator.providers.google.reply import GoogleReplyStream
from orchestrator.providers.google.request import config, contents
from orchestrator.providers.http_client import base_url, headers, http_client, secret
from orchestrator.providers.setting import HttpSetting
from orchestrator.providers.spec import ModelSize, ProbeRequest, ProviderSpec, is_refusal
from orchestrator.wire.generation import Failure, Reply

if TYPE_CHECKING:
    from google.genai import Client
    from google.genai.errors import APIError
    from google.genai.types import GenerateContentResponse
    from httpx2 import AsyncClient

_KEY = "GOOGLE_GENERATIVE_AI_API_KEY"
_BASE_URL = "GOOGLE_GENERATIVE_AI_BASE_URL"
_DEFAULT_BASE_URL = "https://generativelanguage.googleapis.com/v1beta"
_DELAY = re.compile(r"(\d+(?:\.\d+)?)s", re.ASCII)


@asynccontextmanager
async def connect(setting: ProviderSetting) -> AsyncIterator[Provider]:
    """Create a client of the API.

    Raises:
        ConfigError: the base URL or the headers are not valid.
        MissingEnvError: GOOGLE_GENERATIVE_AI_API_KEY has no value.
    """
    url = base_url(setting, _BASE_URL, _DEFAULT_BASE_URL)
    key, given = secret(setting, _KEY), headers(setting)
    # The import takes most of a second; Sandboxes start in the meantime.
    http, client = await asyncio.to_thread(_client, url, key, given, setting.env)
    async with http:
        yield Google(client, urlsplit(url).hostname or "", secrets=(key, *given.values()))


def probe(setting: ProviderSetting) -> ProbeRequest:
    """List one model, which is free (https://ai.google.dev/api/models)."""
    key = secret(setting, _KEY)
    return ProbeRequest(
        url=f"{base_url(setting, _BASE_URL, _DEFAULT_BASE_URL)}/models",
        variable=_KEY,
        key=key,
        headers={"x-goog-api-key": key} | headers(setting),
        query={"pageSize": "1"},
        is_refusal=_refuses_key,
    )


def _refuses_key(status: int, message: str) -> bool:
    """Whether the API refuses the key; an unknown one gets 400 (https://ai.google.dev/gemini-api/docs/troubleshooting)."""
    return is_refusal(status, message) or (status == HTTPStatus.BAD_REQUEST and "API_KEY_INVALID" in message)


class Google:
    """The Gemini API at `host`."""

    def __init__(self, client: "Client", host: str, secrets: tuple[str, ...]) -> None:
        self._client = client
        self._host = host
        self._secrets = secrets

    async def generate(self, request: ModelRequest, on_delta: OnDelta) -> Reply | Failure:
        """Call the model once and stream its reply."""
        # Already installed and imported by `connect`.
        from google.genai.errors import APIError  # noqa: PLC0415 slow import
        from google.genai.types import Content, GenerateContentConfig  # noqa: PLC0415 slow import
        from httpx2 import ConnectError, HTTPError, TimeoutException  # noqa: PLC0415 slow import

        try:
            turns = [Content.model_validate(turn) for turn in contents(request.messages)]
            settings = GenerateContentConfig.model_validate(config(request))
        except ValueError:
            message = "the conversation contains data that the API does not accept, such as an image that is not base64"
            return Failure(name="BadRequestError", message=message)
        arriving = GoogleReplyStream(request, on_delta)
        outcome: Reply | Failure
        try:
            opened = await self._client.aio.models.generate_content_stream(
                model=request.model, contents=cast("Any", turns), config=settings
            )
            chunks = cast("AsyncGenerator[GenerateContentResponse]", opened)
            async with aclosing(chunks):
                async for chunk in chunks:
                    arriving.take(chunk)
            outcome = arriving.outcome()
        except APIError as error:
            outcome = _refused(error)
        except TimeoutException:
            outcome = silent(request.timeout)
        except ConnectError as error:
            outcome = unreachable(self._host, error)
        except HTTPError as error:
            outcome = broken(f"the connection to the model's API broke: {error}")
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            outcome = off_format(error)
        return masked(outcome, self._secrets)


def _client(url: str, key: str, given: Mapping[str, str], env: Mapping[str, str]) -> tuple["AsyncClient", "Client"]:
    sdk = import_module("google.genai")
    http = http_client(url, env)
    client = sdk.Client(
        # Explicit, so that the SDK does not read it from the environment.
        vertexai=False,
        api_key=key,
        debug_config=import_module("google.genai.client").DebugConfig(client_mode=""),
        http_options={
            "base_url": url,
            # The URL already ends in the version.
            "api_version": "",
            "headers": dict(given),
            "httpx_async_client": http,
            "httpx_client": import_module("httpx2").Client(trust_env=False),
        },
    )
    return http, client


def _refused(error: "APIError") -> Failure:
    failure = refused(error.code or 500, error.message, getattr(error.response, "headers", None) or {}, key=_KEY)
    if failure.retry_after_ms is None:
        return failure.with_(retry_after_ms=_retry_delay_ms(error.details))
    return failure


def _retry_delay_ms(details: Any) -> int | None:
    """The delay in the body of the API's error, as `google.rpc.RetryInfo`: `{"retryDelay": "1.5s"}`."""
    error = details.get("error") if isinstance(details, dict) else None
    listed = error.get("details") if isinstance(error, dict) else None
    for one in listed if isinstance(listed, list) else ():
        delay = _DELAY.fullmatch(str(one.get("retryDelay"))) if isinstance(one, dict) else None
        if delay:
            return round(float(delay[1]) * 1000)
    return None


_SIZE = ModelSize(1_048_576, 65_536)

SPEC = ProviderSpec(
    name="google",
    connect=connect,
    settings=HttpSetting,
    required=(_KEY,),
    probe=probe,
    sdk=("google", "google.genai"),
    models={
        "gemini-3-pro-preview": _SIZE,
        "gemini-2.5-pro": _SIZE,
        "gemini-2.5-flash": _SIZE,
        "gemini-2.5-flash-lite": _SIZE,
    },
    tiers={"low": "gemini-2.5-flash-lite", "middle": "gemini-2.5-flash", "high": "gemini-2.5-pro"},
)
