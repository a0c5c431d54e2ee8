"""The Chat Completions API through OpenAI's SDK, for all who speak it."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any

from orchestrator.providers import ModelRequest, OnDelta, Provider, ProviderSetting
from orchestrator.providers.endpoint import http_client
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
from orchestrator.providers.openai_reply import ReplyStream
from orchestrator.providers.openai_request import Dialect, body
from orchestrator.wire.generation import Failure, Reply

if TYPE_CHECKING:
    from openai import APIError, AsyncOpenAI

_LASTING = frozenset({"invalid_request_error", "authentication_error", "permission_error", "insufficient_quota"})


@dataclass(frozen=True, slots=True)
class Access:
    """How to reach the API. Without `key` there is no `Authorization` but one of `headers`.

    `deployments`: the URL of a call names its model, as Azure had it first; `query` then has `api-version`.
    """

    base_url: str
    key: str | None = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    query: Mapping[str, str] = field(default_factory=dict)
    deployments: bool = False


@asynccontextmanager
async def open_chat(setting: ProviderSetting, access: Access, dialect: Dialect) -> AsyncIterator[Provider]:
    """Make a client of the API."""
    # The import takes most of a second; meanwhile Sandboxes start.
    client = await asyncio.to_thread(_client, access, setting.env)
    secrets = (access.key or "", *access.headers.values())
    async with client:
        yield ChatCompletions(client, dialect, _calls_without_key(access), secrets)


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
        """Call the model once; its reply is streamed."""
        # Installed and imported by now: `open_chat` did both.
        from httpx2 import HTTPError  # noqa: PLC0415 slow import
        from openai import APIConnectionError, APIError, APIStatusError, APITimeoutError  # noqa: PLC0415 slow import

        outcome: Reply | Failure
        try:
            outcome = await self._stream(request, on_delta)
        except APIStatusError as error:
            outcome = refused(
                error.status_code, _said(error), error.response.headers, key=self._dialect.key, code=error.code
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

        arriving = ReplyStream(request, on_delta)
        arguments = {**body(request, self._dialect), **self._extra, "timeout": request.timeout}
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


def _client(access: Access, env: Mapping[str, str]) -> "AsyncOpenAI":
    sdk = import_module("openai")
    shared: dict[str, Any] = {
        "base_url": access.base_url,
        "max_retries": 0,
        "http_client": http_client(access.base_url, env),
        # Not None, for which the SDK would look into the environment.
        "admin_api_key": "",
    }
    client: AsyncOpenAI
    if access.deployments:
        client = sdk.AsyncAzureOpenAI(api_key=access.key, api_version=access.query["api-version"], **shared)
    else:
        client = sdk.AsyncOpenAI(api_key=access.key or "none", default_query=access.query, **shared)
    # The SDK has read these from the environment; what is to be sent is in our headers.
    client.organization = client.project = None
    client._custom_headers = access.headers  # noqa: SLF001 OPENAI_CUSTOM_HEADERS stands before those we would give
    return client


def _calls_without_key(access: Access) -> Mapping[str, Any]:
    """What keeps the SDK from sending a key where there is none: only a call can leave a header out."""
    if access.key is not None or "authorization" in {name.lower() for name in access.headers}:
        return {}
    return {"extra_headers": {"Authorization": import_module("openai").Omit()}}


def _said(error: "APIError") -> str:
    """What the API said, without the SDK's repetition of the whole body."""
    found = error.body.get("message") if isinstance(error.body, dict) else None
    return str(found or error.message)


def _stopped(error: "APIError") -> Failure:
    """The API's own error, told amid a stream; another try may help unless it says otherwise."""
    said = f"stopped its reply: {_said(error)}"
    if is_too_long(said, error.code):
        return context_window_exceeded(f"the model's API {said}")
    if error.code and error.code.isdecimal() and len(error.code) == len("500"):
        failure = refused(int(error.code), said)
        return failure.with_(message=f"the model's API {said}")
    kind = error.type or error.code or "api_error"
    return Failure(name="StreamError", message=f"the model's API {said}", is_retryable=kind not in _LASTING)
