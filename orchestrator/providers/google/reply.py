"""Build a Reply or a Failure from the chunks of a Gemini stream. Pure functions."""

from typing import TYPE_CHECKING

from orchestrator.providers.api import ModelRequest, OnDelta
from orchestrator.providers.failures import broken, invalid_tool_input
from orchestrator.providers.google.request import signature
from orchestrator.wire.generation import Failure, FinishReason, Reasoning, Reply, RequestedCall
from orchestrator.wire.identity import identify
from orchestrator.wire.usage import Usage

if TYPE_CHECKING:
    from google.genai.types import (
        Candidate,
        FunctionCall,
        GenerateContentResponse,
        GenerateContentResponseUsageMetadata,
        Part,
    )

_FINISH = {
    "STOP": FinishReason.STOP,
    "MAX_TOKENS": FinishReason.LENGTH,
    "SAFETY": FinishReason.CONTENT_FILTER,
    "RECITATION": FinishReason.CONTENT_FILTER,
    "BLOCKLIST": FinishReason.CONTENT_FILTER,
    "PROHIBITED_CONTENT": FinishReason.CONTENT_FILTER,
    "SPII": FinishReason.CONTENT_FILTER,
    "MODEL_ARMOR": FinishReason.CONTENT_FILTER,
}
_BAD_CALL = frozenset({"MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "TOO_MANY_TOOL_CALLS"})
_INCOMPLETE = frozenset({"MALFORMED_RESPONSE", "FINISH_REASON_UNSPECIFIED"})
# Stored in records, so it keeps this name.
_REASONING_KEY = "thinking"


class GoogleReplyStream:
    """A streaming reply. Pass every chunk to `take`, then call `outcome`."""

    def __init__(self, request: ModelRequest, on_delta: OnDelta) -> None:
        self._request = request
        self._on_delta = on_delta
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._signatures: dict[str, bytes] = {}
        self._calls: list[RequestedCall] = []
        self._usage: GenerateContentResponseUsageMetadata | None = None
        self._finish: str | None = None
        self._finish_message = ""
        self._blocked = False

    def take(self, chunk: "GenerateContentResponse") -> None:
        """Process one chunk."""
        self._usage = chunk.usage_metadata or self._usage
        if chunk.prompt_feedback is not None and chunk.prompt_feedback.block_reason is not None:
            self._blocked = True
        for candidate in (chunk.candidates or ())[:1]:
            self._take_candidate(candidate)

    def outcome(self) -> Reply | Failure:
        """Return the result; call it after the last chunk."""
        if self._finish in _BAD_CALL:
            return invalid_tool_input(
                f"the model wrote a tool call that cannot be parsed: {self._finish_message or self._finish}"
            )
        if self._blocked and self._finish is None:
            return Reply(usage=_usage_of(self._usage), finish_reason=FinishReason.CONTENT_FILTER)
        if self._finish is None or self._finish in _INCOMPLETE:
            return broken("the model's reply ended before it was complete")
        finish = _FINISH.get(self._finish, FinishReason.OTHER)
        return Reply(
            text="".join(self._text),
            reasoning=self._reasoning_blocks(),
            tool_calls=tuple(self._calls),
            usage=_usage_of(self._usage),
            # The API has no finish reason for tool calls.
            finish_reason=FinishReason.TOOL_CALLS if self._calls and finish is FinishReason.STOP else finish,
        )

    def _take_candidate(self, candidate: "Candidate") -> None:
        if candidate.finish_reason is not None:
            self._finish = str(candidate.finish_reason.value)
            self._finish_message = candidate.finish_message or ""
        for part in (candidate.content and candidate.content.parts) or ():
            self._take_part(part)

    def _take_part(self, part: "Part") -> None:
        key = _REASONING_KEY if part.thought else "text"
        if part.function_call is not None:
            key = f"call:{self._add_call(part.function_call)}"
        elif part.text:
            (self._reasoning if part.thought else self._text).append(part.text)
            self._on_delta("reasoning" if part.thought else "text", part.text)
        if part.thought_signature:
            self._signatures[key] = part.thought_signature

    def _add_call(self, call: "FunctionCall") -> str:
        """Add the call, and return its id. Without an id from the API, the id is derived from the request."""
        request = self._request
        call_id = call.id or identify(request.expert_key, request.generation, len(self._calls))
        self._calls.append(RequestedCall(id=call_id, name=call.name or "", args=call.args or {}))
        return call_id

    def _reasoning_blocks(self) -> tuple[Reasoning, ...]:
        """The reasoning with its signature, then the signatures of other parts, without text."""
        others = {key: signature(key, thought) for key, thought in self._signatures.items()}
        text, signed = "".join(self._reasoning), others.pop(_REASONING_KEY, None)
        first = (Reasoning(text=text, signature=signed),) if text or signed else ()
        return (*first, *(Reasoning(text="", signature=other) for other in others.values()))


def _usage_of(used: "GenerateContentResponseUsageMetadata | None") -> Usage:
    """Counts as for the other providers: input is what was not cached, output includes reasoning."""
    if used is None:
        return Usage()
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
