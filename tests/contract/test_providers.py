"""Our providers pass the contract suite that ships, their APIs behind real sockets where they have one."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from orchestrator.providers import Provider, ProviderSetting, open_provider
from orchestrator.testing.fake_provider import FakeProvider
from orchestrator.testing.provider_contract import ProviderContract, Scene
from tests.support.fake_anthropic import block, error, start, stop, stream, text, tool_use
from tests.support.fake_http import Events, Plain, fake_http


def _halves(whole: str) -> tuple[str, str]:
    return whole[: len(whole) // 2], whole[len(whole) // 2 :]


@asynccontextmanager
async def scripted(scene: Scene, directory: Path) -> AsyncIterator[Provider]:
    """The scripted provider in this scene."""
    reply: dict[str, Any] = {
        "text": scene.text,
        "reasoning": scene.reasoning,
        "toolCalls": [{"name": name, "args": args} for name, args in scene.calls],
        "usage": {"inputTokens": 10, "outputTokens": 7},
    }
    if scene.error:
        name, status, retryable = scene.error
        reply = {"error": {"name": name, "message": "no", "statusCode": status, "isRetryable": retryable}}
    (directory / "replies.json").write_text(json.dumps({"coach": [reply]}))
    async with open_provider(ProviderSetting("scripted", {}, {}, directory)) as provider:
        yield provider


def _messages_api(scene: Scene) -> Events | Plain:
    if scene.error:
        kinds = {"RateLimitError": "rate_limit_error", "AuthenticationError": "authentication_error"}
        return error(scene.error[1], kinds[scene.error[0]], "no")
    events = [start()]
    if scene.reasoning:
        pieces = [{"type": "thinking_delta", "thinking": half} for half in _halves(scene.reasoning)]
        events += block(0, {"type": "thinking", "thinking": "", "signature": ""}, *pieces)
    if scene.text:
        events += text(1, *_halves(scene.text))
    for index, (name, args) in enumerate(scene.calls):
        events += tool_use(2 + index, f"toolu_{index}", name, *_halves(json.dumps(args)))
    return stream([*events, *stop("tool_use" if scene.calls else "end_turn")])


@asynccontextmanager
async def anthropic(scene: Scene, directory: Path) -> AsyncIterator[Provider]:
    """Anthropic's API in this scene."""
    async with fake_http(_messages_api(scene)) as api:
        setting = ProviderSetting("anthropic", {"baseUrl": api.url}, {"ANTHROPIC_API_KEY": "sk-canary"}, directory)
        async with open_provider(setting) as provider:
            yield provider


@asynccontextmanager
async def fake(scene: Scene, _: Path) -> AsyncIterator[Provider]:
    """The provider in memory in this scene."""
    yield FakeProvider([scene.outcome()])


class TestScripted(ProviderContract):
    """Replies from a file."""

    open = staticmethod(scripted)


class TestAnthropic(ProviderContract):
    """Anthropic's API."""

    open = staticmethod(anthropic)


class TestFake(ProviderContract):
    """Replies from memory."""

    open = staticmethod(fake)
