"""Anthropic's SDK as the judge of our client of the Messages API."""

import httpx2
from anthropic import APIConnectionError, APIError, APIStatusError, APITimeoutError, AsyncAnthropic
from anthropic.types import Message

from orchestrator.providers import ModelRequest, ProviderSetting
from orchestrator.providers.anthropic.request import request_body
from orchestrator.wire.generation import FinishReason, Reasoning, Reply, RequestedCall
from orchestrator.wire.usage import Usage
from tests.judges.judge import KEY, Problem, http_client

_FINISH = {
    "end_turn": FinishReason.STOP,
    "stop_sequence": FinishReason.STOP,
    "tool_use": FinishReason.TOOL_CALLS,
    "max_tokens": FinishReason.LENGTH,
    "refusal": FinishReason.CONTENT_FILTER,
}


class AnthropicJudge:
    """The Messages API through its SDK."""

    async def send(self, setting: ProviderSetting, request: ModelRequest) -> None:
        """Send a request, and ignore the answer."""
        async with _client(setting) as client:
            opened = await client.messages.create(**request_body(request), stream=True, timeout=request.timeout)
            async for _ in opened:
                pass

    async def reply(self, setting: ProviderSetting, request: ModelRequest) -> Reply | Problem:
        """Send a request, and return what the SDK accumulates."""
        async with _client(setting) as client:
            try:
                async with client.messages.stream(**request_body(request), timeout=request.timeout) as stream:
                    return _reply(await stream.get_final_message())
            except APIStatusError as error:
                return _problem(error)
            except (APITimeoutError, httpx2.TimeoutException):
                return Problem("silent")
            except APIConnectionError:
                return Problem("unreachable")
            except (APIError, httpx2.HTTPError, ValueError, AssertionError, AttributeError, RuntimeError, TypeError):
                return Problem("broken")


def _client(setting: ProviderSetting) -> AsyncAnthropic:
    return AsyncAnthropic(
        api_key=KEY,
        base_url=setting.setting["baseUrl"],
        default_headers=setting.setting.get("headers"),
        max_retries=0,
        open_telemetry=False,
        http_client=http_client(setting),
    )


def _problem(error: APIStatusError) -> Problem:
    if error.status_code == 200:
        return Problem("stopped", None, error.api_message or error.type)
    after = error.response.headers.get("retry-after")
    retry = round(float(after) * 1000) if after else None
    if error.status_code == 400 and error.api_message and "prompt is too long" in error.api_message:
        return Problem("too long", 400, error.api_message, retry)
    return Problem("refused", error.status_code, error.api_message, retry)


def _reply(message: Message) -> Reply | Problem:
    if message.stop_reason is None:
        return Problem("broken")
    if message.stop_reason == "model_context_window_exceeded":
        return Problem("too long")
    reasoning: list[Reasoning] = []
    for block in message.content:
        if block.type == "thinking":
            reasoning.append(Reasoning(text=block.thinking, signature=block.signature or None))
        elif block.type == "redacted_thinking":
            reasoning.append(Reasoning(text="", signature=f"redacted_thinking:{block.data}"))
    used = message.usage
    fresh, cached = used.input_tokens + (used.cache_creation_input_tokens or 0), used.cache_read_input_tokens or 0
    return Reply(
        text="".join(block.text for block in message.content if block.type == "text"),
        reasoning=tuple(reasoning),
        tool_calls=tuple(
            RequestedCall(id=block.id, name=block.name, args=dict(block.input))
            for block in message.content
            if block.type == "tool_use"
        ),
        usage=Usage(
            input_tokens=fresh,
            output_tokens=used.output_tokens,
            reasoning_tokens=(used.output_tokens_details.thinking_tokens if used.output_tokens_details else 0) or 0,
            total_tokens=fresh + cached + used.output_tokens,
            cached_input_tokens=cached,
        ),
        finish_reason=_FINISH.get(message.stop_reason, FinishReason.OTHER),
    )
