"""Every provider over HTTP, against a real server with its wire format, and the failures that can occur there."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import pytest

from orchestrator.providers import ModelRequest, Provider, ProviderSetting, open_provider
from orchestrator.testing.leak_check import nothing_left
from orchestrator.wire.generation import Failure, FinishReason, Reasoning, Reply, RequestedCall, ToolDefinition
from orchestrator.wire.message import TextPart, UserMessage
from orchestrator.wire.usage import Usage
from tests.support import fake_google, fake_openai
from tests.support.fake_http import Events, FakeHttp, Plain, fake_http

SECRET = "sk-canary-0123456789"
USED = Usage(input_tokens=10, output_tokens=7, reasoning_tokens=3, total_tokens=117, cached_input_tokens=100)
REQUEST = ModelRequest(
    expert_key="coach",
    generation=3,
    model="gpt-5",
    messages=(UserMessage(id="m", contents=(TextPart(id="p", text="Hello"),)),),
    tools=(ToolDefinition(name="read", description="Reads.", input_schema={"type": "object"}),),
    reasoning_tokens=2048,
    timeout=5,
)


class Words(Protocol):
    """The events of a wire format."""

    def text(self, *pieces: str) -> list[str]:
        """Return a reply of text."""

    def reasoned(self, thought: str, text: str) -> list[str]:
        """Return a reply after reasoning."""

    def calls(self, *calls: tuple[str, Mapping[str, Any]]) -> list[str]:
        """Return a reply that calls tools."""

    def corrupt(self) -> list[str]:
        """Return a reply whose tool call cannot be read."""

    def finished(self, reason: FinishReason) -> list[str]:
        """Return a reply that ends for this reason."""

    def failing(self) -> list[str]:
        """Return a reply that the API breaks off with an error."""

    def refusal(self, status: int, said: str, headers: Mapping[str, str]) -> Plain:
        """Return an answer that is an error."""


@dataclass(frozen=True, slots=True)
class ChatCompletions:
    """OpenAI's format; `reasoning` is the field for reasoning, if it has one."""

    reasoning: str = "reasoning"

    def text(self, *pieces: str) -> list[str]:
        """Return a reply of text."""
        return [*(fake_openai.chunk(content=piece) for piece in pieces), *fake_openai.stop("stop")]

    def reasoned(self, thought: str, text: str) -> list[str]:
        """Return a reply after reasoning."""
        return [fake_openai.chunk(**{self.reasoning: piece, "content": None}) for piece in thought] + self.text(text)

    def calls(self, *calls: tuple[str, Mapping[str, Any]]) -> list[str]:
        """Return calls whose arguments arrive in turns, a few characters at a time."""
        whole = [json.dumps(args) if args else "" for _, args in calls]
        first = [fake_openai.call(index, "", f"call_{index}", name) for index, (name, _) in enumerate(calls)]
        pieces = [
            fake_openai.call(index, text[start : start + 5])
            for start in range(0, max(map(len, whole)), 5)
            for index, text in enumerate(whole)
        ]
        return [*first, *pieces, *fake_openai.stop("tool_calls")]

    def corrupt(self) -> list[str]:
        """Return a call with incomplete arguments."""
        return [fake_openai.call(0, '{"path": "a', "call_0", "read"), *fake_openai.stop("tool_calls")]

    def finished(self, reason: FinishReason) -> list[str]:
        """Return a reply that ends for this reason."""
        names = {FinishReason.LENGTH: "length", FinishReason.CONTENT_FILTER: "content_filter"}
        return [fake_openai.chunk(content="Once"), *fake_openai.stop(names[reason])]

    def failing(self) -> list[str]:
        """Return a reply that the API breaks off with an error."""
        return [fake_openai.chunk(content="Once"), fake_openai.error_event("overloaded"), fake_openai.DONE]

    def refusal(self, status: int, said: str, headers: Mapping[str, str]) -> Plain:
        """Return an answer that is an error."""
        return fake_openai.error(status, "some_error", said, headers)


@dataclass(frozen=True, slots=True)
class Gemini:
    """Google's format."""

    def text(self, *pieces: str) -> list[str]:
        """Return a reply of text."""
        return [*(fake_google.chunk(fake_google.text(piece)) for piece in pieces), *fake_google.stop("STOP")]

    def reasoned(self, thought: str, text: str) -> list[str]:
        """Return a reply after reasoning."""
        return [fake_google.chunk(fake_google.thought(piece)) for piece in thought] + self.text(text)

    def calls(self, *calls: tuple[str, Mapping[str, Any]]) -> list[str]:
        """Return calls, which arrive whole and without ids."""
        return [*(fake_google.chunk(fake_google.call(*call)) for call in calls), *fake_google.stop("STOP")]

    def corrupt(self) -> list[str]:
        """Return the API's own report that the model wrote invalid JSON."""
        return [*fake_google.stop("MALFORMED_FUNCTION_CALL", finishMessage="Malformed function call: read(")]

    def finished(self, reason: FinishReason) -> list[str]:
        """Return a reply that ends for this reason."""
        names = {FinishReason.LENGTH: "MAX_TOKENS", FinishReason.CONTENT_FILTER: "SAFETY"}
        return [fake_google.chunk(fake_google.text("Once")), *fake_google.stop(names[reason])]

    def failing(self) -> list[str]:
        """Return a reply that the API breaks off with an error."""
        once = fake_google.chunk(fake_google.text("Once"))
        return [once, fake_google.error_event(503, "UNAVAILABLE", "overloaded")]

    def refusal(self, status: int, said: str, headers: Mapping[str, str]) -> Plain:
        """Return an answer that is an error."""
        return fake_google.error(status, "SOME_ERROR", said, headers=headers)


@dataclass(frozen=True, slots=True)
class Wire:
    """A provider with its settings, and the form of its requests: target and the header with the key."""

    name: str
    words: Words
    key: str | None
    target: str
    sent: tuple[str, str] | None
    path: str = ""
    setting: Mapping[str, Any] = field(default_factory=dict)
    reasons: bool = True

    @asynccontextmanager
    async def open(self, *answers: Events | Plain) -> AsyncIterator[tuple[Provider, FakeHttp]]:
        """Give the provider, connected to a server with these answers."""
        async with nothing_left(), asyncio.timeout(20), fake_http(*answers) as api:
            env = {self.key: SECRET} if self.key else {}
            setting = ProviderSetting(self.name, {"baseUrl": api.url + self.path, **self.setting}, env, Path("/"))
            async with open_provider(setting) as provider:
                yield provider, api


BEARER = ("authorization", f"Bearer {SECRET}")
WIRES = [
    Wire("openai", ChatCompletions(), "OPENAI_API_KEY", "/chat/completions", BEARER, reasons=False),
    Wire(
        "azure-openai",
        ChatCompletions(),
        "AZURE_API_KEY",
        "/v1/chat/completions?api-version=v1",
        ("api-key", SECRET),
        reasons=False,
    ),
    Wire(
        "azure-openai",
        ChatCompletions(),
        "AZURE_API_KEY",
        "/deployments/gpt-5/chat/completions?api-version=2026-01-01",
        ("api-key", SECRET),
        setting={"useDeploymentBasedUrls": True, "apiVersion": "2026-01-01"},
        reasons=False,
    ),
    Wire("ollama", ChatCompletions(), None, "/v1/chat/completions", None),
    Wire("deepseek", ChatCompletions("reasoning_content"), "DEEPSEEK_API_KEY", "/chat/completions", BEARER),
    Wire(
        "google",
        Gemini(),
        "GOOGLE_GENERATIVE_AI_API_KEY",
        "/v1beta/models/gpt-5:streamGenerateContent?alt=sse",
        ("x-goog-api-key", SECRET),
        path="/v1beta",
    ),
]


@pytest.fixture(params=WIRES, ids=["openai", "azure-openai", "azure-deployments", "ollama", "deepseek", "google"])
def wire(request: pytest.FixtureRequest) -> Wire:
    """Every provider in turn."""
    found: Wire = request.param
    return found


Heard = list[tuple[str, str]]


async def ask(
    wire: Wire, answer: Events | Plain | Sequence[str], request: ModelRequest = REQUEST
) -> tuple[Reply | Failure, Heard]:
    """Return the provider's result for an answer, and the pieces streamed meanwhile."""
    heard: Heard = []
    answer = answer if isinstance(answer, Events | Plain) else Events(answer)
    async with wire.open(answer) as (provider, api):
        outcome = await provider.generate(request, lambda kind, piece: heard.append((kind, piece)))
    assert len(api.received) == 1, "one call is one request"
    return outcome, heard


async def test_request_carries_key_and_question(wire: Wire) -> None:
    """The key is only where the API expects it; the question is in the body."""
    async with wire.open(Events(wire.words.text("Hi"))) as (provider, api):
        await provider.generate(REQUEST, lambda _kind, _piece: None)
    (received,) = api.received
    with_key = {(name, value) for name, value in received.headers.items() if SECRET in value}
    assert with_key == ({wire.sent} if wire.sent else set())
    assert received.target == wire.target
    assert wire.sent or "authorization" not in received.headers
    assert "Hello" in json.dumps(received.body)


async def test_environment_of_the_process_is_not_read(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables that the SDKs would read have no effect: header, key, URL and proxy of the process."""
    evil = "evil-0123456789"
    for name in ("OPENAI_API_KEY", "OPENAI_ADMIN_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "GOOGLE_API_KEY"):
        monkeypatch.setenv(name, evil)
    monkeypatch.setenv("AZURE_OPENAI_AD_TOKEN", evil)
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", f"x-evil: {evil}\nauthorization: {evil}")
    monkeypatch.setenv("GOOGLE_GENAI_API_VERSION", evil)
    monkeypatch.setenv("GOOGLE_GENAI_USE_VERTEXAI", "true")
    monkeypatch.setenv("GOOGLE_GENAI_CLIENT_MODE", "replay")
    for name in ("HTTP_PROXY", "ALL_PROXY", "OPENAI_BASE_URL", "GOOGLE_GEMINI_BASE_URL"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with wire.open(Events(wire.words.text("Hi"))) as (provider, api):
        outcome = await provider.generate(REQUEST, lambda _kind, _piece: None)
    assert isinstance(outcome, Reply)
    assert evil not in repr(api.received)
    assert api.received[0].target == wire.target
    assert wire.sent is None or wire.sent in api.received[0].headers.items()


async def test_text_is_streamed_and_counted(wire: Wire) -> None:
    """Each piece is streamed as it arrives; the reply is whole; input tokens exclude cached ones."""
    outcome, heard = await ask(wire, wire.words.text("Squats, ", "rows — ", "rest."))
    assert outcome == Reply(text="Squats, rows — rest.", usage=USED, finish_reason=FinishReason.STOP)
    assert heard == [("text", "Squats, "), ("text", "rows — "), ("text", "rest.")]


async def test_reasoning_is_streamed_before_the_text(wire: Wire) -> None:
    """Reasoning is separate from text, if the API sends any."""
    if not wire.reasons:
        return
    outcome, heard = await ask(wire, wire.words.reasoned("Hmm", "Yes."))
    assert isinstance(outcome, Reply)
    assert (outcome.reasoning, outcome.text) == ((Reasoning(text="Hmm"),), "Yes.")
    assert heard == [("reasoning", "H"), ("reasoning", "m"), ("reasoning", "m"), ("text", "Yes.")]


async def test_tool_calls_keep_order_and_arguments(wire: Wire) -> None:
    """Calls that are split over chunks and interleaved are whole and in order; arguments are no text."""
    calls: list[tuple[str, dict[str, Any]]] = [
        ("read", {"path": "ä/b", "deep": {"list": [1, None, 2.5, "}"]}}),
        ("list", {}),
        ("read", {"path": "c" * 100}),
    ]
    outcome, heard = await ask(wire, wire.words.calls(*calls))
    assert isinstance(outcome, Reply)
    ids = [call.id for call in outcome.tool_calls]
    assert outcome == Reply(
        tool_calls=tuple(
            RequestedCall(id=own, name=name, args=args) for own, (name, args) in zip(ids, calls, strict=True)
        ),
        usage=USED,
        finish_reason=FinishReason.TOOL_CALLS,
    )
    assert len(set(ids)) == 3
    assert heard == []


async def test_ids_are_the_same_for_the_same_generation(wire: Wire) -> None:
    """Repeating a call gives equal ids."""
    first, _ = await ask(wire, wire.words.calls(("read", {"a": 1})))
    second, _ = await ask(wire, wire.words.calls(("read", {"a": 1})))
    assert first == second


async def test_corrupt_tool_input_is_a_failure(wire: Wire) -> None:
    """Unreadable arguments are not guessed; a retry may help."""
    outcome, _ = await ask(wire, wire.words.corrupt())
    assert isinstance(outcome, Failure)
    assert (outcome.name, outcome.is_retryable) == ("InvalidToolInput", True)


@pytest.mark.parametrize("reason", [FinishReason.LENGTH, FinishReason.CONTENT_FILTER])
async def test_finish_reasons_are_reported(wire: Wire, reason: FinishReason) -> None:
    """The reason why the model stopped is translated."""
    outcome, _ = await ask(wire, wire.words.finished(reason))
    assert outcome == Reply(text="Once", usage=USED, finish_reason=reason)


@pytest.mark.parametrize(
    ("status", "name", "retryable"),
    [
        (400, "BadRequestError", False),
        (401, "AuthenticationError", False),
        (408, "RequestTimeoutError", True),
        (409, "ConflictError", True),
        (500, "InternalServerError", True),
        (503, "InternalServerError", True),
    ],
)
async def test_a_refusal_is_a_failure(wire: Wire, status: int, name: str, *, retryable: bool) -> None:
    """Status and text are the API's, with our key masked; the message names the variable to check."""
    outcome, heard = await ask(wire, wire.words.refusal(status, f"no, {SECRET}", {}))
    said = "no, ***" if wire.key else f"no, {SECRET}"
    hint = f"; check {wire.key}" if wire.key and status == 401 else ""
    message = f"the model's API answered {status}: {said}{hint}"
    assert outcome == Failure(name=name, message=message, status_code=status, is_retryable=retryable)
    assert heard == []


@pytest.mark.parametrize(
    ("headers", "milliseconds"),
    [
        ({"retry-after": "7"}, 7000),
        ({"retry-after-ms": "250", "retry-after": "7"}, 250),
        ({"retry-after": "soon"}, None),
    ],
)
async def test_a_rate_limit_has_the_time_of_the_retry(
    wire: Wire, headers: dict[str, str], milliseconds: int | None
) -> None:
    """A 429 may be retried after the header's time."""
    outcome, _ = await ask(wire, wire.words.refusal(429, "slower", headers))
    message = "the model's API answered 429: slower"
    assert outcome == Failure(
        name="RateLimitError", message=message, status_code=429, is_retryable=True, retry_after_ms=milliseconds
    )


async def test_an_error_page_is_a_failure(wire: Wire) -> None:
    """An HTML answer of a gateway is a retryable failure."""
    outcome, _ = await ask(wire, Plain(502, "<html>bad gateway</html>", {"content-type": "text/html"}))
    assert isinstance(outcome, Failure)
    assert (outcome.status_code, outcome.is_retryable) == (502, True)


async def test_an_error_amid_the_reply_is_a_failure(wire: Wire) -> None:
    """A partial reply before the error is not used."""
    outcome, heard = await ask(wire, wire.words.failing())
    assert isinstance(outcome, Failure)
    assert outcome.is_retryable
    assert "overloaded" in outcome.message
    assert heard == [("text", "Once")]


async def test_a_cut_connection_is_a_failure(wire: Wire) -> None:
    """A reply that was cut off may be retried, whatever had arrived."""
    outcome, heard = await ask(wire, Events(wire.words.text("Once", "upon")[:2], "cut"))
    assert isinstance(outcome, Failure)
    assert (outcome.name, outcome.is_retryable) == ("StreamBroken", True)
    assert heard == [("text", "Once"), ("text", "upon")]


async def test_an_end_without_a_finish_reason_is_a_failure(wire: Wire) -> None:
    """A stream without a finish reason is no reply."""
    outcome, _ = await ask(wire, wire.words.text("Once", "upon")[:2])
    message = "the model's reply ended before it was complete"
    assert outcome == Failure(name="StreamBroken", message=message, is_retryable=True)


@pytest.mark.parametrize("junk", ["{", "[]", '"text"', '{"choices": [1], "candidates": [1]}'])
async def test_what_is_not_the_format_is_a_failure(wire: Wire, junk: str) -> None:
    """Invalid data in a stream fails the call and not the orchestrator."""
    outcome, _ = await ask(wire, [junk])
    assert isinstance(outcome, Failure)
    assert (outcome.name, outcome.is_retryable) == ("StreamBroken", True)


async def test_silence_ends_with_the_timeout(wire: Wire) -> None:
    """An API that goes silent is given up after the timeout."""
    stalled = Events(wire.words.text("Once")[:1], "stall")
    outcome, _ = await ask(wire, stalled, replace(REQUEST, timeout=0.3))
    message = "the model's API was silent for 300 ms"
    assert outcome == Failure(name="Timeout", message=message, is_retryable=True)


async def test_a_call_can_be_cancelled(wire: Wire) -> None:
    """The caller's own limit ends the call at once and leaves nothing open."""
    async with wire.open(Events(wire.words.text("Once")[:1], "stall")) as (provider, _):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(None) as limit:
                await provider.generate(
                    REQUEST, lambda _kind, _piece: limit.reschedule(asyncio.get_running_loop().time())
                )


async def test_an_api_that_does_not_answer_is_a_failure(wire: Wire) -> None:
    """A failed connection may be retried."""
    async with fake_http() as api:
        closed = api.url
    env = {wire.key: SECRET} if wire.key else {}
    setting = ProviderSetting(wire.name, {"baseUrl": closed, **wire.setting}, env, Path("/"))
    async with nothing_left(), asyncio.timeout(20), open_provider(setting) as provider:
        outcome = await provider.generate(REQUEST, lambda _kind, _piece: None)
    assert isinstance(outcome, Failure)
    assert (outcome.name, outcome.is_retryable) == ("ConnectionError", True)
    assert "127.0.0.1" in outcome.message
