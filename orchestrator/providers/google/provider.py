"""Google's Gemini API."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from http import HTTPStatus
from math import ceil
from typing import TYPE_CHECKING
from urllib.parse import quote

from orchestrator.http.headers import merged
from orchestrator.providers.api import ModelRequest, OnDelta, Provider, ProviderSetting
from orchestrator.providers.call import Call, Refusal
from orchestrator.providers.google.errors import KEY, api_error
from orchestrator.providers.google.events import GeminiParser
from orchestrator.providers.google.reply import GoogleReplyStream
from orchestrator.providers.google.request import request_body
from orchestrator.providers.http_client import base_url, headers, open_client, secret
from orchestrator.providers.setting import HttpSetting
from orchestrator.providers.spec import ModelSize, ProbeRequest, ProviderSpec, is_refusal
from orchestrator.wire.generation import Failure, Reply

if TYPE_CHECKING:
    from orchestrator.providers.api_client import ApiClient

_BASE_URL = "GOOGLE_GENERATIVE_AI_BASE_URL"
_DEFAULT_BASE_URL = "https://generativelanguage.googleapis.com/v1beta"
_KINDS = ("models/", "tunedModels/")
_IN_PATH = "/!$&'()*+,;=:@"
"""What a path may have in addition to letters, digits and `-._~` (RFC 3986)."""
_REQUESTS = 32
"""How many requests one reply may take: the API cuts long ones, and continues them."""


@asynccontextmanager
async def connect(setting: ProviderSetting) -> AsyncIterator[Provider]:
    """Open a client of the API.

    Raises:
        ConfigError: the base URL or the headers are not valid.
        MissingEnvError: GOOGLE_GENERATIVE_AI_API_KEY has no value.
    """
    url = base_url(setting, _BASE_URL, _DEFAULT_BASE_URL)
    key, given = secret(setting, KEY), headers(setting)
    async with open_client(setting, url, _headers(key, given), (key, *given.values())) as client:
        yield Google(client)


def probe(setting: ProviderSetting) -> ProbeRequest:
    """List one model, which is free (https://ai.google.dev/api/models)."""
    key = secret(setting, KEY)
    return ProbeRequest(
        url=f"{base_url(setting, _BASE_URL, _DEFAULT_BASE_URL)}/models",
        variable=KEY,
        key=key,
        headers=_headers(key, headers(setting)),
        query={"pageSize": "1"},
        is_refusal=_refuses_key,
    )


def _refuses_key(status: int, message: str) -> bool:
    """Whether the API refuses the key; an unknown one gets 400 (https://ai.google.dev/gemini-api/docs/troubleshooting)."""
    return is_refusal(status, message) or (status == HTTPStatus.BAD_REQUEST and "API_KEY_INVALID" in message)


def _headers(key: str, given: Mapping[str, str]) -> dict[str, str]:
    return merged({"x-goog-api-key": key}, given)


class Google:
    """The Gemini API."""

    def __init__(self, client: "ApiClient") -> None:
        self._client = client

    async def generate(self, request: ModelRequest, on_delta: OnDelta) -> Reply | Failure:
        """Call the model once and stream its reply."""
        try:
            body = request_body(request)
        except ValueError:
            message = "the conversation contains data that the API does not accept, such as an image that is not base64"
            return Failure(name="BadRequestError", message=message)
        arriving = GoogleReplyStream(request, on_delta)
        for _ in range(_REQUESTS):
            call = Call(
                _path(request.model),
                body,
                request.timeout,
                _refused,
                {"Accept": "*/*", "X-Server-Timeout": str(ceil(request.timeout))},
                GeminiParser,
            )
            outcome = await self._client.reply(call, arriving)
            if isinstance(outcome, Failure) or arriving.continuation in (None, body.get("continuationToken")):
                break
            body["continuationToken"] = arriving.continuation
            arriving.continue_reply()
        return outcome


def _path(model: str) -> str:
    named = model if model.startswith(_KINDS) else f"models/{model}"
    return f"/{quote(named, safe=_IN_PATH)}:streamGenerateContent?alt=sse"


def _refused(refusal: Refusal) -> Failure:
    return api_error(refusal.status, refusal.content, refusal.headers)


_SIZE = ModelSize(1_048_576, 65_536)

SPEC = ProviderSpec(
    name="google",
    connect=connect,
    settings=HttpSetting,
    required=(KEY,),
    probe=probe,
    models={
        "gemini-3-pro-preview": _SIZE,
        "gemini-2.5-pro": _SIZE,
        "gemini-2.5-flash": _SIZE,
        "gemini-2.5-flash-lite": _SIZE,
    },
    tiers={"low": "gemini-2.5-flash-lite", "middle": "gemini-2.5-flash", "high": "gemini-2.5-pro"},
)
