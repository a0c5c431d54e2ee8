"""Anthropic's wire format and its possible failures, over a real socket."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import ConfigError, MissingEnvError
from orchestrator.providers import ModelRequest, Provider, ProviderSetting, open_provider
from orchestrator.providers.failures import context_window_exceeded
from orchestrator.testing.leak_check import nothing_left
from orchestrator.version import VERSION
from orchestrator.wire.generation import Failure, FinishReason, Reasoning, Reply, RequestedCall
from orchestrator.wire.message import TextPart, UserMessage
from orchestrator.wire.usage import Usage
from tests.support.fake_anthropic import block, error, start, stop, stream, text, tool_use
from tests.support.fake_http import Events, Plain, fake_http

KEY = "sk-ant-canary-0123456789"
REQUEST = ModelRequest(
    expert_key="coach",
    generation=0,
    model="m",
    messages=(UserMessage(id="m", contents=(TextPart(id="p", text="Hello"),)),),
    tools=(),
    reasoning_tokens=0,
    timeout=5,
)


def ignore(_kind: str, _piece: str) -> None:
    """Ignore a piece of a reply."""


def setting(env: Mapping[str, str], **given: Any) -> ProviderSetting:
    """A setting for this provider."""
    return ProviderSetting("anthropic", given, env, Path("/"))


@asynccontextmanager
async def provider(url: str) -> AsyncIterator[Provider]:
    """The provider with this base URL."""
    async with open_provider(setting({"ANTHROPIC_API_KEY": KEY}, baseUrl=url)) as opened:
        yield opened


async def ask(answer: Events | Plain, request: ModelRequest = REQUEST) -> Reply | Failure:
    """Return the provider's result for a server's answer."""
    async with nothing_left(), asyncio.timeout(60), fake_http(answer) as api, provider(api.url) as opened:
        return await opened.generate(request, ignore)


async def test_request_is_what_the_api_expects() -> None:
    """One POST with the key as a bearer token, our headers, and nothing else."""
    async with nothing_left(), fake_http(stream([start(), *text(0, "Hi"), *stop("end_turn")])) as api:
        given = setting({"ANTHROPIC_API_KEY": KEY}, baseUrl=api.url, headers={"x-team": "gym"})
        async with open_provider(given) as opened:
            await opened.generate(REQUEST, ignore)
    (received,) = api.received
    assert received.headers == {
        "host": api.url.removeprefix("http://"),
        "content-length": received.headers["content-length"],
        "user-agent": f"perstack-orch/{VERSION}",
        "accept": "application/json",
        "accept-encoding": "gzip, deflate",
        "content-type": "application/json",
        "authorization": f"Bearer {KEY}",
        "anthropic-version": "2026-10-21",
        "x-team": "gym",
    }
    assert received.target == "/v1/messages"
    assert received.body == {
        "model": "m",
        "max_tokens": 32_000,
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Hello"}]}],
        "stream": True,
    }


async def test_environment_names_the_api_where_the_config_does_not() -> None:
    """ANTHROPIC_BASE_URL is read from the given environment."""
    async with (
        fake_http(stream([start(), *text(0, "Hi"), *stop("end_turn")])) as api,
        open_provider(setting({"ANTHROPIC_API_KEY": KEY, "ANTHROPIC_BASE_URL": api.url})) as opened,
    ):
        outcome = await opened.generate(REQUEST, ignore)
    assert isinstance(outcome, Reply)


async def test_reply_with_everything() -> None:
    """Thinking with its signature, redacted thinking, text, split calls, unknown blocks and cached tokens are read."""
    thinking: list[dict[str, Any]] = [
        {"type": "thinking_delta", "thinking": "Let me "},
        {"type": "thinking_delta", "thinking": "see."},
        {"type": "signature_delta", "signature": "sig"},
    ]
    unknown = {"type": "hologram", "text": "not text"}
    events = [
        start(cache_creation_input_tokens=100, cache_read_input_tokens=1000),
        {"type": "ping"},
        *block(0, {"type": "thinking", "thinking": "", "signature": ""}, *thinking),
        *block(1, {"type": "redacted_thinking", "data": "opaque"}),
        *block(2, unknown, {"type": "hologram_delta", "light": 1}),
        {"type": "novelty"},
        *text(3, "Read", "ing."),
        *tool_use(4, "toolu_1", "read", '{"pa', 'th": "a"', "}"),
        *tool_use(5, "toolu_2", "list"),
        *stop("tool_use", output_tokens_details={"thinking_tokens": 3}),
    ]
    assert await ask(stream(events)) == Reply(
        text="Reading.",
        reasoning=(
            Reasoning(text="Let me see.", signature="sig"),
            Reasoning(text="", signature="redacted_thinking:opaque"),
        ),
        tool_calls=(
            RequestedCall(id="toolu_1", name="read", args={"path": "a"}),
            RequestedCall(id="toolu_2", name="list", args={}),
        ),
        usage=Usage(input_tokens=110, output_tokens=7, reasoning_tokens=3, total_tokens=1117, cached_input_tokens=1000),
        finish_reason=FinishReason.TOOL_CALLS,
    )


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        ("end_turn", FinishReason.STOP),
        ("stop_sequence", FinishReason.STOP),
        ("max_tokens", FinishReason.LENGTH),
        ("refusal", FinishReason.CONTENT_FILTER),
        ("pause_turn", FinishReason.OTHER),
        ("novelty", FinishReason.OTHER),
    ],
)
async def test_stop_reasons(reason: str, finish: FinishReason) -> None:
    """Every stop reason has its finish reason."""
    outcome = await ask(stream([start(), *text(0, "Hi"), *stop(reason)]))
    assert isinstance(outcome, Reply)
    assert (outcome.text, outcome.finish_reason) == ("Hi", finish)


async def test_a_reply_that_fills_the_context_window_is_a_failure() -> None:
    """A retry would only be longer, so the failure is permanent and its message contains the remedy."""
    outcome = await ask(stream([start(), *text(0, "Hi"), *stop("model_context_window_exceeded")]))
    assert outcome == context_window_exceeded("its reply was cut")
    assert isinstance(outcome, Failure)
    assert (outcome.name, outcome.is_retryable) == ("ContextWindowExceeded", False)
    assert "--resume-from an earlier checkpoint" in outcome.message


@pytest.mark.parametrize(
    "said",
    [
        "prompt is too long: 207791 tokens > 200000 maximum",
        "input length and `max_tokens` exceed context limit: 178959 + 64000 > 200000, decrease input length or",
    ],
)
async def test_a_conversation_that_is_too_long_is_recognized(said: str) -> None:
    """The API reports it as an invalid request; the failure has its own name."""
    told = f"the model's API answered 400: {said}"
    outcome = await ask(error(400, "invalid_request_error", said))
    assert outcome == context_window_exceeded(told).with_(status_code=400)


@pytest.mark.parametrize(
    "answer",
    [
        stream([start(), *text(0, "Hi")]),
        stream([start(), *text(0, "Hi"), *stop(None)]),
        stream([start(), *text(0, "Hi"), stop("end_turn")[0]]),
        stream([start(), *text(0, "Hi")], then="cut"),
        stream([], then="cut"),
        stream([]),
        stream([{"type": "content_block_start"}]),
        stream([start(), {"type": "content_block_delta", "index": 9, "delta": {"type": "text_delta", "text": "x"}}]),
        stream([start(), *block(0, {"type": "text", "text": ""}, {"type": "text_delta", "text": None})]),
        Plain(200, "<html>captive portal</html>", {"content-type": "text/html"}),
        Plain(200, "event: message_start\ndata: {nonsense\n\n", {"content-type": "text/event-stream"}),
    ],
)
async def test_a_broken_stream_is_never_a_reply(answer: Events | Plain) -> None:
    """A cut, truncated, malformed or foreign stream is a retryable failure."""
    outcome = await ask(answer)
    assert isinstance(outcome, Failure)
    assert (outcome.name, outcome.is_retryable, outcome.status_code) == ("StreamBroken", True, None)


async def test_a_stalled_stream_is_a_timeout() -> None:
    """An API that becomes silent does not block a Run."""
    stalled = stream([start(), *text(0, "Hi")], then="stall")
    failure = Failure(name="Timeout", message="the model's API was silent for 100 ms", is_retryable=True)
    assert await ask(stalled, replace(REQUEST, timeout=0.1)) == failure


@pytest.mark.parametrize("given", ['{"a": 1{]]', '{"a": 1', "[1]", "null", '{"a": NaN}', "{} {}"])
async def test_corrupt_tool_input_is_never_a_call(given: str) -> None:
    """Input that does not parse strictly to an object is a failure."""
    outcome = await ask(stream([start(), *tool_use(0, "toolu_1", "exec", given), *stop("tool_use")]))
    message = "the model's input for tool 'exec' is not a JSON object"
    assert outcome == Failure(name="InvalidToolInput", message=message, is_retryable=True)


async def test_tool_input_cut_for_length_is_reported() -> None:
    """A reply cut during a call keeps the call, without input, and the finish reason."""
    outcome = await ask(stream([start(), *tool_use(0, "toolu_1", "exec", '{"a": 1'), *stop("max_tokens")]))
    assert isinstance(outcome, Reply)
    assert outcome.tool_calls == (RequestedCall(id="toolu_1", name="exec", args={}),)
    assert outcome.finish_reason is FinishReason.LENGTH


@pytest.mark.parametrize(
    ("answer", "failure"),
    [
        (
            error(400, "invalid_request_error", "max_tokens: too large"),
            Failure(
                name="InvalidRequestError",
                message="the model's API answered 400: max_tokens: too large",
                status_code=400,
            ),
        ),
        (
            error(401, "authentication_error", f"invalid key {KEY}"),
            Failure(
                name="AuthenticationError",
                message="the model's API answered 401: invalid key ***; check ANTHROPIC_API_KEY",
                status_code=401,
            ),
        ),
        (
            error(403, "permission_error", "not yours"),
            Failure(
                name="PermissionError",
                message="the model's API answered 403: not yours; check ANTHROPIC_API_KEY",
                status_code=403,
            ),
        ),
        (
            error(404, "not_found_error", "model: claude-old"),
            Failure(
                name="NotFoundError",
                message="the model's API answered 404: model: claude-old; choose an available model with --model, or "
                "`model` in perstack.toml",
                status_code=404,
            ),
        ),
        (
            error(429, "rate_limit_error", "slow down", retry_after="7"),
            Failure(
                name="RateLimitError",
                message="the model's API answered 429: slow down",
                status_code=429,
                is_retryable=True,
                retry_after_ms=7000,
            ),
        ),
        (
            error(429, "rate_limit_error", "slow down", retry_after_ms="250", retry_after="7"),
            Failure(
                name="RateLimitError",
                message="the model's API answered 429: slow down",
                status_code=429,
                is_retryable=True,
                retry_after_ms=250,
            ),
        ),
        (
            error(500, "api_error", "oops", retry_after="soon"),
            Failure(name="ApiError", message="the model's API answered 500: oops", status_code=500, is_retryable=True),
        ),
        (
            error(529, "overloaded_error", "busy"),
            Failure(
                name="OverloadedError",
                message="the model's API answered 529: busy",
                status_code=529,
                is_retryable=True,
            ),
        ),
        (
            Plain(502, "<html>bad gateway</html>", {"content-type": "text/html"}),
            Failure(
                name="InternalServerError",
                message="the model's API answered 502: no reason given",
                status_code=502,
                is_retryable=True,
            ),
        ),
    ],
)
async def test_errors_of_the_api(answer: Plain, failure: Failure) -> None:
    """A failure has the API's message, whether and when to retry; it is requested once, and never contains the key."""
    assert await ask(answer) == failure


@pytest.mark.parametrize(
    ("kind", "name", "retryable"),
    [("overloaded_error", "OverloadedError", True), ("invalid_request_error", "InvalidRequestError", False)],
)
async def test_an_error_amid_the_stream(kind: str, name: str, *, retryable: bool) -> None:
    """The API may report an error during a reply."""
    told = {"type": "error", "error": {"type": kind, "message": "sorry"}}
    outcome = await ask(stream([start(), *text(0, "Hi"), told], then="stall"))
    message = "the model's API stopped its reply: sorry"
    assert outcome == Failure(name=name, message=message, is_retryable=retryable)


async def test_an_api_that_is_not_there() -> None:
    """An unreachable base URL is a failure."""
    async with fake_http() as api:
        url = api.url
    async with provider(url) as opened:
        outcome = await opened.generate(REQUEST, ignore)
    assert isinstance(outcome, Failure)
    assert (outcome.name, outcome.is_retryable) == ("ConnectionError", True)
    assert outcome.message.startswith("the model's API at 127.0.0.1 could not be reached: ")


async def test_cancelling_closes_the_connection() -> None:
    """A cancelled call closes its connection."""
    async with nothing_left(), fake_http(stream([start()], then="stall")) as api, provider(api.url) as opened:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await opened.generate(REQUEST, ignore)


async def test_missing_key() -> None:
    """The error names the variable."""
    with pytest.raises(MissingEnvError, match="ANTHROPIC_API_KEY"):
        async with open_provider(setting({})):
            pass


@pytest.mark.parametrize("url", ["http://api.example.com", "ftp://127.0.0.1", "https://", "http://127.0.0.1.evil.org"])
async def test_base_url_must_be_private_to_the_connection(url: str) -> None:
    """Plain http, which would expose the key, is allowed only for loopback."""
    with pytest.raises(ConfigError, match="use https, or http on loopback"):
        async with provider(url):
            pass


@pytest.mark.parametrize(
    "url", ["http://localhost:1", "http://[::1]:1", "http://127.0.0.1:1", "https://gateway.example"]
)
async def test_usable_base_urls(url: str) -> None:
    """Loopback in every spelling, and https anywhere, is allowed."""
    async with provider(url):
        pass


async def test_headers_must_be_text() -> None:
    """A number among the headers is one clear error."""
    with pytest.raises(ConfigError, match="must be a table of strings"):
        async with open_provider(setting({"ANTHROPIC_API_KEY": KEY}, headers={"x": 1})):
            pass
