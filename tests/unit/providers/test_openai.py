"""What servers that speak OpenAI's format do differently, over a real socket."""

import asyncio
from pathlib import Path

import pytest

from orchestrator.providers import ModelRequest, ProviderSetting, open_provider
from orchestrator.providers.failures import context_window_exceeded
from orchestrator.wire.generation import Failure, FinishReason, Reply, RequestedCall
from orchestrator.wire.identity import identify
from orchestrator.wire.usage import Usage
from tests.support.fake_http import Events, FakeHttp, Plain, fake_http
from tests.support.fake_openai import DONE, call, chunk, error, error_event, stop, usage
from tests.support.tidy import nothing_left

REQUEST = ModelRequest("coach", 3, "gpt-5", (), (), 0, 5)
NEVER = {"prompt_tokens_details": None, "completion_tokens_details": None}


async def ask(*data: str | Plain, **setting: object) -> tuple[Reply | Failure, FakeHttp]:
    """What becomes of a stream or of another answer, and what was asked."""
    refusals = [one for one in data if isinstance(one, Plain)]
    answers: list[Events | Plain] = [*refusals] or [Events([one for one in data if isinstance(one, str)])]
    async with nothing_left(), asyncio.timeout(10), fake_http(*answers) as api:
        given = ProviderSetting("openai", {"baseUrl": api.url, **setting}, {"OPENAI_API_KEY": "k"}, Path("/"))
        async with open_provider(given) as provider:
            return await provider.generate(REQUEST, lambda _kind, _piece: None), api


async def test_organization_project_and_headers_are_sent() -> None:
    """As the setting says."""
    _, api = await ask(*stop("stop"), organization="org", project="gym", headers={"x-team": "a"})
    sent = api.received[0].headers
    assert (sent["openai-organization"], sent["openai-project"], sent["x-team"]) == ("org", "gym", "a")


async def test_calls_numbered_alike_are_told_apart_by_id() -> None:
    """Some servers number every call of a reply 0."""
    first = (call(0, '{"a"', "one", "read"), call(0, ": 1}"))
    outcome, _ = await ask(*first, call(0, "{}", "two", "list"), *stop("stop"))
    assert isinstance(outcome, Reply)
    assert outcome.tool_calls == (
        RequestedCall(id="one", name="read", args={"a": 1}),
        RequestedCall(id="two", name="list", args={}),
    )
    assert outcome.finish_reason is FinishReason.TOOL_CALLS


async def test_calls_without_ids_get_their_own() -> None:
    """The same ones for the same generation."""
    outcome, _ = await ask(call(0, "{}", None, "read"), call(1, "{}", None, "read"), *stop("tool_calls"))
    assert isinstance(outcome, Reply)
    assert [one.id for one in outcome.tool_calls] == [identify("coach", 3, 0), identify("coach", 3, 1)]


@pytest.mark.parametrize("arguments", ['{"a": 1', "[1]", '"a"', "null", '{"a": NaN}', '{"a": 1} {}'])
async def test_arguments_must_be_one_json_object(arguments: str) -> None:
    """Anything else is the model's mistake."""
    outcome, _ = await ask(call(0, arguments, "one", "read"), *stop("tool_calls"))
    message = "the model's input for tool 'read' is not a JSON object"
    assert outcome == Failure(name="InvalidToolInput", message=message, is_retryable=True)


async def test_arguments_cut_for_length_are_empty() -> None:
    """The finish reason says why; nobody runs such a call."""
    outcome, _ = await ask(call(0, '{"a": ', "one", "read"), *stop("length"))
    assert isinstance(outcome, Reply)
    assert outcome.tool_calls == (RequestedCall(id="one", name="read", args={}),)
    assert outcome.finish_reason is FinishReason.LENGTH


async def test_usage_as_deepseek_counts_it() -> None:
    """Cached tokens stand beside the others; details may be missing."""
    outcome, _ = await ask(chunk(content="Hi"), chunk("stop"), usage(prompt_cache_hit_tokens=60, **NEVER), DONE)
    assert isinstance(outcome, Reply)
    assert outcome.usage == Usage(input_tokens=50, output_tokens=7, total_tokens=117, cached_input_tokens=60)


async def test_a_reply_needs_neither_usage_nor_done() -> None:
    """Not all servers send them; the finish reason is what counts."""
    outcome, _ = await ask(chunk(content="Hi"), chunk("stop"))
    assert outcome == Reply(text="Hi")


async def test_a_refusal_is_text() -> None:
    """The model's own words, where it will not answer."""
    outcome, _ = await ask(chunk(refusal="I will not."), chunk("stop"))
    assert outcome == Reply(text="I will not.")


@pytest.mark.parametrize("reason", ["error", "insufficient_system_resource"])
async def test_giving_up_is_no_reply(reason: str) -> None:
    """OpenRouter and DeepSeek say so by the finish reason."""
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
async def test_an_error_amid_a_stream_says_whether_to_retry(event: str, status: int | None, *, retryable: bool) -> None:
    """By HTTP's status where the event has one, as OpenRouter's do, else by its type."""
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
async def test_a_conversation_that_is_too_long_is_told_apart(code: str, said: str) -> None:
    """OpenAI has a code for it, others say it in words; as an answer and amid a stream alike."""
    told = f"the model's API answered 400: {said}"
    outcome, _ = await ask(error(400, code, said))
    assert outcome == context_window_exceeded(told).with_(status_code=400)
    outcome, _ = await ask(error_event(said, code=code))
    assert outcome == context_window_exceeded(f"the model's API stopped its reply: {said}")
