"""OpenAI's SDK as the judge of our client of the Chat Completions API, and of the servers with its format."""

import json
from dataclasses import dataclass
from typing import Any

import httpx2
from openai import APIConnectionError, APIError, APIStatusError, APITimeoutError, AsyncAzureOpenAI, AsyncOpenAI, Omit
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletion

from orchestrator.providers import ModelRequest, ProviderSetting
from orchestrator.providers.openai.request import Dialect, request_body
from orchestrator.wire.generation import FinishReason, Reasoning, Reply, RequestedCall
from orchestrator.wire.usage import Usage
from tests.judges.judge import KEY, Kind, Problem, http_client

_FINISH = {
    "stop": FinishReason.STOP,
    "tool_calls": FinishReason.TOOL_CALLS,
    "function_call": FinishReason.TOOL_CALLS,
    "length": FinishReason.LENGTH,
    "content_filter": FinishReason.CONTENT_FILTER,
}


@dataclass(frozen=True, slots=True)
class OpenaiJudge:
    """The Chat Completions API through its SDK, to one vendor. `sends_key`: as `Authorization: Bearer`."""

    dialect: Dialect
    sends_key: bool = True
    deployments: bool = False

    async def send(self, setting: ProviderSetting, request: ModelRequest) -> None:
        """Send a request, and ignore the answer."""
        async with self._client(setting) as client:
            async for _ in await client.chat.completions.create(**self._arguments(setting, request)):
                pass

    async def reply(self, setting: ProviderSetting, request: ModelRequest) -> Reply | Problem:
        """Send a request, and return what the SDK accumulates."""
        async with self._client(setting) as client:
            state: ChatCompletionStreamState[Any] = ChatCompletionStreamState()
            opened = None
            try:
                opened = await client.chat.completions.create(**self._arguments(setting, request))
                async for chunk in opened:
                    state.handle_chunk(chunk)
                return _reply(state.current_completion_snapshot)
            except APIError as error:
                return _problem(error, is_open=opened is not None)
            except httpx2.TimeoutException:
                # In a stream, 3.0 has the errors of its HTTP library.
                return Problem("silent")
            except httpx2.HTTPError:
                return Problem("broken")
            except (ValueError, AssertionError, AttributeError, TypeError, LookupError):
                return Problem("broken")

    def _client(self, setting: ProviderSetting) -> AsyncOpenAI:
        given = dict(setting.setting.get("headers", {}))
        for option in ("organization", "project"):
            if option in setting.setting:
                given[f"OpenAI-{option.capitalize()}"] = setting.setting[option]
        shared: dict[str, Any] = {
            "base_url": setting.setting["baseUrl"],
            "max_retries": 0,
            "http_client": http_client(setting),
        }
        if self.deployments:
            return AsyncAzureOpenAI(
                api_key=KEY, api_version=setting.setting["apiVersion"], default_headers=given, **shared
            )
        if setting.name == "azure-openai":
            given["api-key"], shared["default_query"] = KEY, {"api-version": "v1"}
            shared["base_url"] += "/v1"
        elif setting.name == "ollama":
            shared["base_url"] += "/v1"
        return AsyncOpenAI(api_key=KEY, default_headers=given, **shared)

    def _arguments(self, setting: ProviderSetting, request: ModelRequest) -> dict[str, Any]:
        # Only a call can leave out a header of the SDK.
        is_given = "authorization" in {name.lower() for name in setting.setting.get("headers", {})}
        headers = {} if self.sends_key or is_given else {"extra_headers": {"Authorization": Omit()}}
        return {**request_body(request, self.dialect), "timeout": request.timeout, **headers}


def _problem(error: APIError, *, is_open: bool) -> Problem:
    code = str(error.code)
    is_status = code.isdecimal()
    kind: Kind = "too long" if code == "context_length_exceeded" else "refused" if is_status else "stopped"
    match error:
        case APIStatusError():
            body = error.body if isinstance(error.body, dict) else {}
            after = error.response.headers.get("retry-after")
            retry = round(float(after) * 1000) if after else None
            return Problem(
                "too long" if kind == "too long" else "refused", error.status_code, body.get("message"), retry
            )
        case APITimeoutError():
            return Problem("silent")
        case APIConnectionError():
            return Problem("broken" if is_open else "unreachable")
        case _:
            # OpenRouter has the status of HTTP as its code.
            return Problem(kind, int(code) if is_status else None, error.message)


def _reply(completion: ChatCompletion) -> Reply | Problem:
    (choice,) = completion.choices
    message, used = choice.message, completion.usage
    if str(choice.finish_reason) in ("None", "error", "insufficient_system_resource"):
        return Problem("broken")
    # These are extensions of other vendors.
    reasoning = getattr(message, "reasoning_content", None) or getattr(message, "reasoning", None)
    calls = [call for call in message.tool_calls or () if call.type == "function"]
    finish = _FINISH.get(choice.finish_reason, FinishReason.OTHER)
    usage = Usage()
    if used is not None:
        known, details = used.prompt_tokens_details, used.completion_tokens_details
        cached = (known.cached_tokens if known else None) or getattr(used, "prompt_cache_hit_tokens", None) or 0
        usage = Usage(
            input_tokens=used.prompt_tokens - cached,
            output_tokens=used.completion_tokens,
            reasoning_tokens=(details.reasoning_tokens if details else None) or 0,
            total_tokens=used.total_tokens,
            cached_input_tokens=cached,
        )
    return Reply(
        text=(message.content or "") + (message.refusal or ""),
        reasoning=(Reasoning(text=reasoning),) if reasoning else (),
        tool_calls=tuple(
            RequestedCall(id=call.id, name=call.function.name, args=_args(call.function.arguments)) for call in calls
        ),
        usage=usage,
        finish_reason=FinishReason.TOOL_CALLS if calls and finish is FinishReason.STOP else finish,
    )


def _args(text: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(text) if text else {}
    return found
