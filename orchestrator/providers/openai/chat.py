"""The Chat Completions API, for all APIs that use this format."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode, urlsplit

from orchestrator.http.headers import merged
from orchestrator.providers.api import ModelRequest, OnDelta, Provider, ProviderSetting
from orchestrator.providers.call import Call, Refusal
from orchestrator.providers.failures import refused
from orchestrator.providers.http_client import open_client
from orchestrator.providers.openai.reply import ChatReplyStream
from orchestrator.providers.openai.request import Dialect, request_body
from orchestrator.providers.spec import ProbeRequest, is_refusal
from orchestrator.wire.generation import Failure, Reply

if TYPE_CHECKING:
    from orchestrator.providers.api_client import ApiClient

_IN_PATH = "!$&'()*+,;=:@"
"""What a segment of a path may have in addition to letters, digits and `-._~` (RFC 3986)."""


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

    @property
    def sent(self) -> dict[str, str]:
        """The headers that go with each request, the key included."""
        if self.key is None:
            return dict(self.headers)
        return merged(
            {"api-key": self.key} if self.deployments else {"Authorization": f"Bearer {self.key}"}, self.headers
        )

    def path(self, model: str) -> str:
        """The path of a call below the base URL, with its query."""
        # A base URL may already name the deployment, with which the call's model is the same.
        is_named = "/deployments" in urlsplit(self.base_url).path
        deployment = f"/deployments/{quote(model, safe=_IN_PATH)}" if self.deployments and not is_named else ""
        query = f"?{urlencode(self.query)}" if self.query else ""
        return f"{deployment}/chat/completions{query}"


def models_request(endpoint: ChatEndpoint, variable: str | None, key: str | None) -> ProbeRequest:
    """List the models, which is free (https://platform.openai.com/docs/api-reference/models/list)."""
    return ProbeRequest(
        url=f"{endpoint.base_url}/models",
        variable=variable,
        key=key,
        headers=endpoint.sent,
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
    """Open a client of the API.

    Raises:
        ConfigError: a header cannot be sent, or the environment names a proxy or certificates that cannot be used.
    """
    secrets = (endpoint.key or "", *endpoint.headers.values())
    async with open_client(setting, endpoint.base_url, endpoint.sent, secrets) as client:
        yield ChatCompletions(client, endpoint, dialect)


class ChatCompletions:
    """The Chat Completions API."""

    def __init__(self, client: "ApiClient", endpoint: ChatEndpoint, dialect: Dialect) -> None:
        self._client = client
        self._endpoint = endpoint
        self._dialect = dialect

    async def generate(self, request: ModelRequest, on_delta: OnDelta) -> Reply | Failure:
        """Call the model once and stream its reply."""
        path, body = self._endpoint.path(request.model), request_body(request, self._dialect)
        call = Call(path, body, request.timeout, self._refused)
        return await self._client.reply(call, ChatReplyStream(request, on_delta))

    def _refused(self, refusal: Refusal) -> Failure:
        # Servers with the same format, and gateways before them, also send the error itself.
        bare = refusal.content if isinstance(refusal.content, dict) and "error" not in refusal.content else {}
        error = refusal.error or bare
        code, message = error.get("code"), refusal.message or error.get("message")
        return refused(
            refusal.status,
            None if message is None else str(message),
            refusal.headers,
            key=self._dialect.key,
            code=None if code is None else str(code),
        )
