"""How a judge, the SDK of an API, and our client are compared."""

import ssl
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import httpx2

from orchestrator.providers import ModelRequest, ProviderSetting, open_provider
from orchestrator.wire.generation import Failure, Reply
from tests.judges.wire import Answer, Sent, Wire, serving

Kind = Literal["refused", "stopped", "broken", "unreachable", "silent", "too long", "unusable"]

KEY = "sk-canary-0123456789"

_KINDS: Mapping[str, Kind] = {
    "StreamBroken": "broken",
    "ConnectionError": "unreachable",
    "Timeout": "silent",
    "ContextWindowExceeded": "too long",
    "InvalidToolInput": "unusable",
}

UNCOMPARED = frozenset({"user-agent", "connection", "content-length", "x-goog-api-client"})
"""Headers that name the client, or its handling of the connection. Those of `x-stainless-` tell about the SDK alone."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A call that failed. `status` is HTTP's; `message` is the API's own, None if it sent none."""

    kind: Kind
    status: int | None = None
    message: str | None = None
    retry_after_ms: int | None = None


class Judge(Protocol):
    """The SDK of an API, with the values that a provider of ours takes."""

    async def send(self, setting: ProviderSetting, request: ModelRequest) -> None:
        """Send a request, and ignore the answer."""

    async def reply(self, setting: ProviderSetting, request: ModelRequest) -> Reply | Problem:
        """Send a request, and return what the SDK makes of the answer."""


@dataclass(frozen=True, slots=True)
class Api:
    """An API: the provider that calls it, the variable with its key, its judge, and how its streams look."""

    provider: str
    key: str | None
    judge: Judge
    path: str = ""
    setting: Mapping[str, Any] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)

    def at(self, url: str, **more: Any) -> ProviderSetting:
        """Return the setting with which both call a server."""
        env = {**self.env, **({self.key: KEY} if self.key else {})}
        return ProviderSetting(self.provider, {"baseUrl": url + self.path, **self.setting, **more}, env, Path("/"))


def http_client(setting: ProviderSetting) -> httpx2.AsyncClient:
    """Return what an SDK sends its requests with, with the proxy and the authority of the setting's environment."""
    authority = setting.env.get("SSL_CERT_FILE")
    verify = ssl.create_default_context(cafile=authority) if authority else True
    return httpx2.AsyncClient(trust_env=False, proxy=setting.env.get("HTTP_PROXY"), verify=verify)


async def ours(setting: ProviderSetting, request: ModelRequest) -> Reply | Failure:
    """Return what our client makes of an answer."""
    async with open_provider(setting) as provider:
        return await provider.generate(request, lambda _kind, _piece: None)


def comparable(outcome: Reply | Failure, judged: Reply | Problem) -> Reply | Problem:
    """Return our outcome as the judge would write it. A message is the judge's if ours has it."""
    if isinstance(outcome, Reply):
        return outcome
    kind: Kind = _KINDS.get(outcome.name, "refused" if outcome.status_code else "stopped")
    said = judged.message if isinstance(judged, Problem) else None
    message = said if said is not None and said in outcome.message else None
    if said is None and kind in ("refused", "stopped") and "no reason given" not in outcome.message:
        message = outcome.message
    status = outcome.status_code if kind in ("refused", "too long") else None
    return Problem(kind, status, message, outcome.retry_after_ms)


async def both(
    api: Api, answer: Answer, request: ModelRequest, make: Callable[..., AbstractAsyncContextManager[Wire]] = serving
) -> tuple[Reply | Problem, Reply | Problem]:
    """Return the outcomes of our client and of the judge for one answer."""
    async with make(answer) as wire:
        outcome = await ours(api.at(wire.url), request)
    async with make(answer) as wire:
        judged = await api.judge.reply(api.at(wire.url), request)
    return comparable(outcome, judged), judged


def compared(sent: Sent) -> Sent:
    """Return a request without what need not be equal."""
    headers = {
        name: value
        for name, value in sent.headers.items()
        if name not in UNCOMPARED and not name.startswith("x-stainless-")
    }
    return Sent(sent.method, sent.target, headers, sent.body)
