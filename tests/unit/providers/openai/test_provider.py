"""Differences between servers with OpenAI's format, over a real socket."""

import asyncio
import json
from pathlib import Path

import pytest

from orchestrator.providers import ModelRequest, ProviderSetting, open_provider
from orchestrator.providers.failures import context_window_exceeded
from orchestrator.testing.leak_check import nothing_left
from orchestrator.wire.generation import Failure, FinishReason, Reply, RequestedCall
from orchestrator.wire.identity import identify
from orchestrator.wire.usage import Usage
from tests.support.fake_http import Events, FakeHttp, Plain, fake_http
from tests.support.fake_openai import DONE, call, chunk, error, error_event, stop, usage

REQUEST = ModelRequest("coach", 3, "gpt-5", (), (), 0, 5)
NEVER = {"prompt_tokens_details": None, "completion_tokens_details": None}


async def ask(*data: str | Plain, **setting: object) -> tuple[Reply | Failure, FakeHttp]:
    """Return the result for a stream or another answer, and the requests."""
    refusals = [one for one in data if isinstance(one, Plain)]
    answers: list[Events | Plain] = [*refusals] or [Events([one for one in data if isinstance(one, str)])]
    async with nothing_left(), asyncio.timeout(10), fake_http(*answers) as api:
        given = ProviderSetting("openai", {"baseUrl": api.url, **setting}, {"OPENAI_API_KEY": "k"}, Path("/"))
        async with open_provider(given) as provider:
            return await provider.generate(REQUEST, lambda _kind, _piece: None), api


async def test_organization_project_and_headers_are_sent() -> None:
    """Organization, project and headers of the setting are sent."""
    _, api = await ask(*stop("stop"), organization="org", project="gym", headers={"x-team": "a"})
    sent = api.received[0].headers
    assert (sent["openai-organization"], sent["openai-project"], sent["x-team"]) == ("org", "gym", "a")


async def test_calls_with_the_same_number_differ_by_id() -> None:
    """Calls that a server all numbers 0 are distinguished by id."""
    first = (call(0, '{"a"', "one", "read"), call(0, ": 1}"))
    outcome, _ = await ask(*first, call(0, "{}", "two", "list"), *stop("stop"))
    assert isinstance(outcome, Reply)
    assert outcome.tool_calls == (
        RequestedCall(id="one", name="read", args={"a": 1}),
        RequestedCall(id="two", name="list", args={}),
    )
    assert outcome.finish_reason is FinishReason.TOOL_CALLS


async def test_calls_without_ids_get_their_own() -> None:
    """Calls without ids get ids, equal for the same generation."""
    outcome, _ = await ask(call(0, "{}", None, "read"), call(1, "{}", None, "read"), *stop("tool_calls"))
    assert isinstance(outcome, Reply)
    assert [one.id for one in outcome.tool_calls] == [identify("coach", 3, 0), identify("coach", 3, 1)]


@pytest.mark.parametrize("arguments", ['{"a": 1', "[1]", '"a"', "null", '{"a": NaN}', '{"a": 1} {}'])
async def test_arguments_must_be_one_json_object(arguments: str) -> None:
    """Other arguments are an error of the model."""
    outcome, _ = await ask(call(0, arguments, "one", "read"), *stop("tool_calls"))
    message = "the model's input for tool 'read' is not a JSON object"
    assert outcome == Failure(name="InvalidToolInput", message=message, is_retryable=True)


async def test_arguments_cut_for_length_are_empty() -> None:
    """The finish reason states the cause; such a call is not executed."""
    outcome, _ = await ask(call(0, '{"a": ', "one", "read"), *stop("length"))
    assert isinstance(outcome, Reply)
    assert outcome.tool_calls == (RequestedCall(id="one", name="read", args={}),)
    assert outcome.finish_reason is FinishReason.LENGTH


async def test_usage_as_deepseek_counts_it() -> None:
    """Cached tokens are in a separate field; details may be missing."""
    outcome, _ = await ask(chunk(content="Hi"), chunk("stop"), usage(prompt_cache_hit_tokens=60, **NEVER), DONE)
    assert isinstance(outcome, Reply)
    assert outcome.usage == Usage(input_tokens=50, output_tokens=7, total_tokens=117, cached_input_tokens=60)


async def test_a_reply_needs_neither_usage_nor_done() -> None:
    """A reply without usage or `[DONE]` is complete if it has a finish reason."""
    outcome, _ = await ask(chunk(content="Hi"), chunk("stop"))
    assert outcome == Reply(text="Hi")


async def test_a_refusal_is_text() -> None:
    """A refusal becomes the text of the reply."""
    outcome, _ = await ask(chunk(refusal="I will not."), chunk("stop"))
    assert outcome == Reply(text="I will not.")


@pytest.mark.parametrize("reason", ["error", "insufficient_system_resource"])
async def test_giving_up_is_no_reply(reason: str) -> None:
    """The finish reasons with which OpenRouter and DeepSeek report a failure make the reply a failure."""
    outcome, _ = await ask(chunk(content="Hi"), *stop(reason))
    assert isinstance(outcome, Failure)
    assert (outcome.name, outcome.is_retryable) == ("StreamBroken", True)


@pytest.mark.parametrize(
    ("event", "status", "retryable"),
    [
        (error_event("slow down", code=429), 429, True),
        (error_event("no credit", code=402), 402, False),
        (error_event("bad", type="invalid_request_error"), None, False),
        (error_event("oops", type=None), None, True),
    ],
)
async def test_an_error_amid_a_stream_has_whether_to_retry(event: str, status: int | None, *, retryable: bool) -> None:
    """The event's HTTP status decides, as with OpenRouter, else its type."""
    outcome, _ = await ask(chunk(content="Hi"), event)
    assert isinstance(outcome, Failure)
    assert (outcome.status_code, outcome.is_retryable) == (status, retryable)
    assert outcome.message.startswith("the model's API stopped its reply: ")


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("context_length_exceeded", "Please shorten it."),
        ("invalid_request_error", "This model's maximum context length is 65536 tokens. However, you requested 66343."),
    ],
)
async def test_a_conversation_that_is_too_long_is_recognized(code: str, said: str) -> None:
    """OpenAI's code, and the texts of other servers, are recognized in an answer and in a stream."""
    told = f"the model's API answered 400: {said}"
    outcome, _ = await ask(error(400, code, said))
    assert outcome == context_window_exceeded(told).with_(status_code=400)
    outcome, _ = await ask(error_event(said, code=code))
    assert outcome == context_window_exceeded(f"the model's API stopped its reply: {said}")


async def test_an_error_without_its_envelope_is_read() -> None:
    """Other servers of the same format, and gateways, send the error itself."""
    body = {"object": "error", "message": "This model's maximum context length is 8192 tokens.", "code": 400}
    outcome, _ = await ask(Plain(400, json.dumps(body)))
    assert isinstance(outcome, Failure)
    assert outcome.name == "ContextWindowExceeded"
    outcome, _ = await ask(Plain(401, '{"statusCode": 401, "message": "Access denied"}'))
    assert isinstance(outcome, Failure)
    assert "answered 401: Access denied" in outcome.message


@pytest.mark.parametrize("status", [200, 400])
async def test_json_that_is_too_deep_is_a_failure(status: int) -> None:
    """Python's parser gives up, and no error may leave the provider."""
    deep = "[" * 100_000
    outcome, _ = await ask(Plain(400, deep) if status == 400 else deep)
    assert isinstance(outcome, Failure)


async def test_an_error_amid_a_stream_may_be_text() -> None:
    """It is shown."""
    outcome, _ = await ask('{"error": "model crashed"}')
    assert isinstance(outcome, Failure)
    assert outcome.message == "the model's API stopped its reply: model crashed"
