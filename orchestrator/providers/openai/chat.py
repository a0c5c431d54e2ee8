"""The Chat Completions API through OpenAI's SDK, for all APIs that use this format."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any

from orchestrator.providers.api import ModelRequest, OnDelta, Provider, ProviderSetting
from orchestrator.providers.failures import (
    broken,
    context_window_exceeded,
    is_too_long,
    masked,
    off_format,
    refused,
    silent,
    unreachable,
)
from orchestrator.providers.http_client import http_client
from orchestrator.providers.openai.reply import ChatReplyStream
from orchestrator.providers.openai.request import Dialect, request_body
from orchestrator.providers.spec import ProbeRequest, is_refusal
from orchestrator.wire.generation import Failure, Reply

if TYPE_CHECKING:
    from openai import APIError, AsyncOpenAI

_LASTING = frozenset({"invalid_request_error", "authentication_error", "permission_error", "insufficient_quota"})


@dataclass(frozen=True, slots=True)
class ChatEndpoint:
    """How to reach the API. Without `key`, `Authorization` is sent only if `headers` contains it.

    `deployments`: the URL of a call names its model, Azure's older form; `query` then has `api-version`.
    """

    base_url: str
    key: str | None = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    query: Mapping[str, str] = field(default_factory=dict)
    deployments: bool = False


def models_request(endpoint: ChatEndpoint, variable: str | None, key: str | None) -> ProbeRequest:
    """List the models, which is free (https://platform.openai.com/docs/api-reference/models/list)."""
    bearer = {} if endpoint.key is None else {"Authorization": f"Bearer {endpoint.key}"}
    if endpoint.deployments and endpoint.key is not None:
        bearer = {"api-key": endpoint.key}
    return ProbeRequest(
        url=f"{endpoint.base_url}/models",
        variable=variable,
        key=key,
        headers=bearer | dict(endpoint.headers),
        query=endpoint.query,
        is_refusal=_refuses_key,
    )


def _refuses_key(status: int, message: str) -> bool:
    """Whether the API refuses the key.

    A key with restricted permissions may call models and not list them: the API then names its "missing scopes", with
    401 or 403 (microsoft/PowerToys#32989).
    """
    return is_refusal(status, message) and "missing scopes" not in message.lower()


@asynccontextmanager
async def open_chat(setting: ProviderSetting, endpoint: ChatEndpoint, dialect: Dialect) -> AsyncIterator[Provider]:
    """Create a client of the API."""
    # The import takes most of a second; Sandboxes start in the meantime.
    client = await asyncio.to_thread(_client, endpoint, setting.env)
    secrets = (endpoint.key or "", *endpoint.headers.values())
    async with client:
        yield ChatCompletions(client, dialect, _calls_without_key(endpoint), secrets)


class ChatCompletions:
    """The Chat Completions API."""

    def __init__(
        self, client: "AsyncOpenAI", dialect: Dialect, extra: Mapping[str, Any], secrets: tuple[str, ...]
    ) -> None:
        self._client = client
        self._dialect = dialect
        self._extra = extra
        self._secrets = secrets

    async def generate(self, request: ModelRequest, on_delta: OnDelta) -> Reply | Failure:
        """Call the model once and stream its reply."""
        # Already installed and imported by `open_chat`.
        from httpx2 import HTTPError  # noqa: PLC0415 slow import
        from openai import APIConnectionError, APIError, APIStatusError, APITimeoutError  # noqa: PLC0415 slow import

        outcome: Reply | Failure
        try:
            outcome = await self._stream(request, on_delta)
        except APIStatusError as error:
            outcome = refused(
                error.status_code, _message(error), error.response.headers, key=self._dialect.key, code=error.code
            )
        except APITimeoutError:
            outcome = silent(request.timeout)
        except APIConnectionError as error:
            outcome = unreachable(self._client.base_url.host, error.__cause__ or error)
        except APIError as error:
            outcome = _stopped(error)
        except HTTPError as error:
            outcome = broken(f"the connection to the model's API broke: {error}")
        return masked(outcome, self._secrets)

    async def _stream(self, request: ModelRequest, on_delta: OnDelta) -> Reply | Failure:
        from openai import APIConnectionError, APITimeoutError  # noqa: PLC0415 slow import

        arriving = ChatReplyStream(request, on_delta)
        arguments = {**request_body(request, self._dialect), **self._extra, "timeout": request.timeout}
        async with await self._client.chat.completions.create(**arguments) as stream:
            try:
                async for chunk in stream:
                    arriving.take(chunk)
                return arriving.outcome()
            except APITimeoutError:
                raise
            except APIConnectionError as error:
                return broken(f"the connection to the model's API broke: {error.__cause__ or error}")
            except (ValueError, LookupError, TypeError, AttributeError) as error:
                return off_format(error)


def _client(endpoint: ChatEndpoint, env: Mapping[str, str]) -> "AsyncOpenAI":
    sdk = import_module("openai")
    shared: dict[str, Any] = {
        "base_url": endpoint.base_url,
        "max_retries": 0,
        "http_client": http_client(endpoint.base_url, env),
        # With None, the SDK would read the environment.
        "admin_api_key": "",
    }
    client: AsyncOpenAI
    if endpoint.deployments:
        client = sdk.AsyncAzureOpenAI(api_key=endpoint.key, api_version=endpoint.query["api-version"], **shared)
    else:
        client = sdk.AsyncOpenAI(api_key=endpoint.key or "none", default_query=endpoint.query, **shared)
    # The SDK has read these from the environment; our own headers contain what must be sent.
    client.organization = client.project = None
    client._custom_headers = endpoint.headers  # noqa: SLF001 OPENAI_CUSTOM_HEADERS stands before those we would give
    return client


def _calls_without_key(endpoint: ChatEndpoint) -> Mapping[str, Any]:
    """Arguments that keep the SDK from sending a key if `endpoint` has none: only a call can omit a header."""
    if endpoint.key is not None or "authorization" in {name.lower() for name in endpoint.headers}:
        return {}
    return {"extra_headers": {"Authorization": import_module("openai").Omit()}}


def _message(error: "APIError") -> str:
    """The API's message, without the SDK's copy of the whole body."""
    found = error.body.get("message") if isinstance(error.body, dict) else None
    return str(found or error.message)


def _stopped(error: "APIError") -> Failure:
    """An error that the API reported during a stream; retryable unless its type is known to be permanent."""
    message = f"stopped its reply: {_message(error)}"
    if is_too_long(message, error.code):
        return context_window_exceeded(f"the model's API {message}")
    if error.code and error.code.isdecimal() and len(error.code) == len("500"):
        failure = refused(int(error.code), message)
        return failure.with_(message=f"the model's API {message}")
    kind = error.type or error.code or "api_error"
    return Failure(name="StreamError", message=f"the model's API {message}", is_retryable=kind not in _LASTING)
