"""The particularities of Google's wire format, over a real socket."""

import asyncio
import json
from base64 import b64decode, urlsafe_b64decode
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.providers import ModelRequest, ProviderSetting, open_provider
from orchestrator.providers.failures import context_window_exceeded
from orchestrator.testing.leak_check import nothing_left
from orchestrator.wire.generation import Failure, FinishReason, Reasoning, Reply, RequestedCall
from orchestrator.wire.identity import identify
from orchestrator.wire.message import (
    ExpertMessage,
    ExpertPart,
    ImageInlinePart,
    Message,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    UserMessage,
)
from orchestrator.wire.usage import Usage
from tests.support.fake_google import USAGE, call, chunk, error, stop, text, thought
from tests.support.fake_http import Events, FakeHttp, Plain, fake_http

REQUEST = ModelRequest(
    expert_key="coach",
    generation=3,
    model="gemini-2.5-pro",
    messages=(UserMessage(id="m", contents=(TextPart(id="p", text="Hello"),)),),
    tools=(),
    reasoning_tokens=2048,
    timeout=5,
)


async def ask(answer: Events | Plain, *messages: Message) -> tuple[Reply | Failure, FakeHttp]:
    """Return the result for an answer, and the requests."""
    request = replace(REQUEST, messages=(*REQUEST.messages, *messages))
    async with nothing_left(), asyncio.timeout(60), fake_http(answer) as api:
        env = {"GOOGLE_GENERATIVE_AI_API_KEY": "canary-0123456789"}
        async with open_provider(ProviderSetting("google", {"baseUrl": api.url}, env, Path("/"))) as provider:
            return await provider.generate(request, lambda _kind, _piece: None), api


async def test_signatures_survive_the_round_trip() -> None:
    """Signatures of text and calls become reasoning without text, and are sent back (in URL-safe base64)."""
    own = identify("coach", 3, 0)
    signed: dict[str, Any] = {"thoughtSignature": "//8="}
    outcome, _ = await ask(
        Events(
            [
                chunk(thought("Hm.")),
                chunk(text("Yes.")),
                chunk(call("read", {"a": 1}, **signed), call("read", {"a": 2})),
                chunk({"functionCall": {"id": "theirs", "name": "list"}}),
                chunk({"text": "", "thoughtSignature": "AAE="}),
                *stop("STOP"),
            ]
        )
    )
    assert isinstance(outcome, Reply)
    assert outcome == Reply(
        text="Yes.",
        reasoning=(
            Reasoning(text="Hm."),
            Reasoning(text="", signature=f"gemini:call:{own}://8="),
            Reasoning(text="", signature="gemini:text:AAE="),
        ),
        tool_calls=(
            RequestedCall(id=own, name="read", args={"a": 1}),
            RequestedCall(id=identify("coach", 3, 1), name="read", args={"a": 2}),
            RequestedCall(id="theirs", name="list", args={}),
        ),
        usage=Usage(input_tokens=10, output_tokens=7, reasoning_tokens=3, total_tokens=117, cached_input_tokens=100),
        finish_reason=FinishReason.TOOL_CALLS,
    )
    parts: tuple[ExpertPart, ...] = (
        *(ThinkingPart(id="p", thinking=one.text, signature=one.signature) for one in outcome.reasoning),
        TextPart(id="p", text=outcome.text),
        *(ToolCallPart(id="p", tool_call_id=one.id, tool_name=one.name, args=one.args) for one in outcome.tool_calls),
    )
    _, api = await ask(Events(stop("STOP")), ExpertMessage(id="e", contents=parts))
    assert api.received[0].body["contents"][1] == {
        "role": "model",
        "parts": [
            {"text": "Yes.", "thoughtSignature": "AAE="},
            {"functionCall": {"name": "read", "args": {"a": 1}}, "thoughtSignature": "__8="},
            {"functionCall": {"name": "read", "args": {"a": 2}}},
            {"functionCall": {"name": "list", "args": {}}},
        ],
    }


async def test_images_go_inline() -> None:
    """The bytes arrive unchanged."""
    image = ImageInlinePart(id="p", encoded_data="//79/A==", mime_type="image/png")
    _, api = await ask(Events(stop("STOP")), UserMessage(id="u", contents=(image,)))
    sent = api.received[0].body["contents"][0]["parts"][1]["inlineData"]
    assert urlsafe_b64decode(sent["data"]) == b64decode(image.encoded_data)


async def test_an_image_that_is_none_is_a_failure() -> None:
    """Data that is not base64 is a permanent failure, and no request is sent."""
    image = ImageInlinePart(id="p", encoded_data="!", mime_type="image/png")
    outcome, api = await ask(Events(stop("STOP")), UserMessage(id="u", contents=(image,)))
    assert isinstance(outcome, Failure)
    assert (outcome.name, outcome.is_retryable, api.received) == ("BadRequestError", False, [])


async def test_a_blocked_question_is_filtered_content() -> None:
    """Without a candidate, but with a block reason, the reply is filtered content."""
    blocked = json.dumps({"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {"promptTokenCount": 4}})
    outcome, _ = await ask(Events([blocked]))
    assert outcome == Reply(usage=Usage(input_tokens=4, total_tokens=4), finish_reason=FinishReason.CONTENT_FILTER)


async def test_retry_info_has_the_time_of_the_retry() -> None:
    """The delay is read from the body of the API's error."""
    info = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "13.5s"}
    outcome, _ = await ask(error(429, "RESOURCE_EXHAUSTED", "quota", {"@type": "other"}, info))
    assert isinstance(outcome, Failure)
    assert (outcome.status_code, outcome.retry_after_ms) == (429, 13_500)


async def test_a_conversation_that_is_too_long_is_recognized() -> None:
    """The API reports it as an invalid argument; the failure has its own name."""
    said = "The input token count (1200293) exceeds the maximum number of tokens allowed (1048576)."
    outcome, _ = await ask(error(400, "INVALID_ARGUMENT", said))
    told = f"the model's API answered 400: {said}"
    assert outcome == context_window_exceeded(told).with_(status_code=400)
    other, _ = await ask(error(400, "INVALID_ARGUMENT", "Unknown name"))
    assert isinstance(other, Failure)
    assert other.name == "BadRequestError"


async def test_a_reply_that_the_api_cuts_is_continued() -> None:
    """Each part is a request with the token of the one before; the reply has the text and the tokens of all."""
    cut = chunk(text("One "), finishReason="CONTINUATION", continuationToken="dG9rZW4=")
    first = Events([cut, json.dumps({"usageMetadata": USAGE})])
    async with (
        nothing_left(),
        asyncio.timeout(60),
        fake_http(first, Events([chunk(text("two.")), *stop("STOP")])) as api,
    ):
        env = {"GOOGLE_GENERATIVE_AI_API_KEY": "canary-0123456789"}
        async with open_provider(ProviderSetting("google", {"baseUrl": api.url}, env, Path("/"))) as provider:
            outcome = await provider.generate(REQUEST, lambda _kind, _piece: None)
    usage = Usage(input_tokens=10, output_tokens=7, reasoning_tokens=3, total_tokens=117, cached_input_tokens=100)
    assert outcome == Reply(text="One two.", usage=usage + usage, finish_reason=FinishReason.STOP)
    assert [received.body.get("continuationToken") for received in api.received] == [None, "dG9rZW4="]


@pytest.mark.parametrize("token", [None, "dG9rZW4="])
async def test_a_reply_that_is_never_continued_has_another_reason(token: str | None) -> None:
    """Without a token, or with the same one again, no further request is made."""
    more = {} if token is None else {"continuationToken": token}
    cut = Events([chunk(text("One."), finishReason="CONTINUATION", **more)])
    async with nothing_left(), asyncio.timeout(60), fake_http(cut, cut) as api:
        env = {"GOOGLE_GENERATIVE_AI_API_KEY": "canary-0123456789"}
        async with open_provider(ProviderSetting("google", {"baseUrl": api.url}, env, Path("/"))) as provider:
            outcome = await provider.generate(REQUEST, lambda _kind, _piece: None)
    assert isinstance(outcome, Reply)
    assert (outcome.text, outcome.finish_reason) == ("One." * (1 if token is None else 2), FinishReason.OTHER)
    assert len(api.received) == (1 if token is None else 2)
