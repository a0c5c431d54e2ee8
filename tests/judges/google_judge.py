"""Google's SDK as the judge of our client of the Gemini API."""

import math
from base64 import b64encode
from typing import Any

import httpx2
from google.genai import Client, types
from google.genai.client import DebugConfig
from google.genai.errors import APIError

from orchestrator.providers import ModelRequest, ProviderSetting
from orchestrator.providers.google.request import request_body
from orchestrator.wire.generation import FinishReason, Reasoning, Reply, RequestedCall
from orchestrator.wire.identity import identify
from orchestrator.wire.usage import Usage
from tests.judges.judge import KEY, Problem, http_client

_FILTERED = ("SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "MODEL_ARMOR")
_FINISH = {"STOP": FinishReason.STOP, "MAX_TOKENS": FinishReason.LENGTH} | dict.fromkeys(
    _FILTERED, FinishReason.CONTENT_FILTER
)


class GoogleJudge:
    """The Gemini API through its SDK."""

    async def send(self, setting: ProviderSetting, request: ModelRequest) -> None:
        """Send a request, and ignore the answer."""
        async with http_client(setting) as http:
            async for _ in await _opened(setting, http, request):
                pass

    async def reply(self, setting: ProviderSetting, request: ModelRequest) -> Reply | Problem:
        """Send a request, and return what the SDK's chunks have."""
        answers: list[httpx2.Response] = []

        async def answered(response: httpx2.Response) -> None:
            answers.append(response)

        async with http_client(setting) as http:
            http.event_hooks = {"response": [answered]}
            try:
                return _reply([chunk async for chunk in await _opened(setting, http, request)], request)
            except APIError as error:
                return _problem(error)
            except httpx2.TimeoutException:
                return Problem("silent")
            except httpx2.HTTPError:
                return Problem("broken" if answers else "unreachable")
            except (ValueError, LookupError, TypeError, AttributeError):
                return Problem("broken")


async def _opened(setting: ProviderSetting, http: httpx2.AsyncClient, request: ModelRequest) -> Any:
    """Have the SDK check and send our body: its types refuse unknown fields."""
    client = Client(
        vertexai=False,
        api_key=KEY,
        debug_config=DebugConfig(client_mode=""),
        http_options=types.HttpOptions(
            base_url=setting.setting["baseUrl"],
            api_version="",
            headers=dict(setting.setting.get("headers", {})),
            httpx_async_client=http,
            httpx_client=httpx2.Client(trust_env=False),
        ),
    )
    body = request_body(request)
    given: dict[str, Any] = {
        **body.get("generationConfig", {}),
        **{name: body[name] for name in ("systemInstruction", "tools") if name in body},
        "httpOptions": {"timeout": math.ceil(request.timeout * 1000)},
        "automaticFunctionCalling": {"disable": True},
    }
    config = types.GenerateContentConfig.model_validate(given)
    contents: Any = [types.Content.model_validate(turn) for turn in body["contents"]]
    return await client.aio.models.generate_content_stream(model=request.model, contents=contents, config=config)


def _problem(error: APIError) -> Problem:
    status = error.code or 500
    told = (error.details.get("error") if isinstance(error.details, dict) else None) or {}
    delays = [each["retryDelay"] for each in told.get("details", ()) if "retryDelay" in each]
    after = getattr(error.response, "headers", {}).get("retry-after")
    retry = round(float(after or delays[0].rstrip("s")) * 1000) if after or delays else None
    if status == 400 and "input token count" in (error.message or ""):
        return Problem("too long", 400, error.message)
    return Problem("refused", status, error.message or None, retry)


def _reply(chunks: list[types.GenerateContentResponse], request: ModelRequest) -> Reply | Problem:
    text, thoughts, signed = "", "", dict[str, bytes]()
    calls: list[RequestedCall] = []
    finish, used, is_blocked = None, types.GenerateContentResponseUsageMetadata(), False
    for chunk in chunks:
        used = chunk.usage_metadata or used
        is_blocked = is_blocked or (
            chunk.prompt_feedback is not None and chunk.prompt_feedback.block_reason is not None
        )
        if not chunk.candidates:
            continue
        candidate = chunk.candidates[0]
        finish = candidate.finish_reason.value if candidate.finish_reason else finish
        for part in (candidate.content.parts if candidate.content else None) or ():
            where = "thinking" if part.thought else "text"
            if part.function_call is not None:
                own = part.function_call.id or identify(request.expert_key, request.generation, len(calls))
                where = f"call:{own}"
                args = part.function_call.args or {}
                calls.append(RequestedCall(id=own, name=part.function_call.name or "", args=args))
            elif part.thought:
                thoughts += part.text or ""
            else:
                text += part.text or ""
            if part.thought_signature:
                signed[where] = part.thought_signature
    if finish in ("MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "TOO_MANY_TOOL_CALLS"):
        return Problem("unusable")
    if is_blocked and finish is None:
        return Reply(usage=_usage(used), finish_reason=FinishReason.CONTENT_FILTER)
    if finish is None or finish in ("MALFORMED_RESPONSE", "FINISH_REASON_UNSPECIFIED"):
        return Problem("broken")
    named = _FINISH.get(finish, FinishReason.OTHER)
    written = {where: f"gemini:{where}:{b64encode(signature).decode()}" for where, signature in signed.items()}
    first = Reasoning(text=thoughts, signature=written.pop("thinking", None))
    return Reply(
        text=text,
        reasoning=(
            *((first,) if first.text or first.signature else ()),
            *(Reasoning(text="", signature=signature) for signature in written.values()),
        ),
        tool_calls=tuple(calls),
        usage=_usage(used),
        finish_reason=FinishReason.TOOL_CALLS if calls and named is FinishReason.STOP else named,
    )


def _usage(used: types.GenerateContentResponseUsageMetadata) -> Usage:
    prompt = (used.prompt_token_count or 0) + (used.tool_use_prompt_token_count or 0)
    cached, thoughts = used.cached_content_token_count or 0, used.thoughts_token_count or 0
    output = (used.candidates_token_count or 0) + thoughts
    return Usage(
        input_tokens=max(prompt - cached, 0),
        output_tokens=output,
        reasoning_tokens=thoughts,
        total_tokens=used.total_token_count or prompt + output,
        cached_input_tokens=cached,
    )
