"""Pure: the chunks of a Gemini stream, folded into a Reply or a Failure."""

from typing import TYPE_CHECKING

from orchestrator.providers import ModelRequest, OnDelta
from orchestrator.providers.failures import broken, invalid_tool_input
from orchestrator.providers.google_request import signature
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
_GIVEN_UP = frozenset({"MALFORMED_RESPONSE", "FINISH_REASON_UNSPECIFIED"})


class ReplyStream:
    """A reply as it arrives. Feed it every chunk, then ask for `outcome`."""

    def __init__(self, request: ModelRequest, on_delta: OnDelta) -> None:
        self._request = request
        self._on_delta = on_delta
        self._text: list[str] = []
        self._thinking: list[str] = []
        self._signatures: dict[str, bytes] = {}
        self._calls: list[RequestedCall] = []
        self._usage: GenerateContentResponseUsageMetadata | None = None
        self._finish: str | None = None
        self._why = ""
        self._blocked = False

    def take(self, chunk: "GenerateContentResponse") -> None:
        """Take one chunk."""
        self._usage = chunk.usage_metadata or self._usage
        if chunk.prompt_feedback is not None and chunk.prompt_feedback.block_reason is not None:
            self._blocked = True
        for candidate in (chunk.candidates or ())[:1]:
            self._candidate(candidate)

    def outcome(self) -> Reply | Failure:
        """What came of it, once no more chunks come."""
        if self._finish in _BAD_CALL:
            return invalid_tool_input(f"the model wrote a tool call that cannot be read: {self._why or self._finish}")
        if self._blocked and self._finish is None:
            return Reply(usage=_total(self._usage), finish_reason=FinishReason.CONTENT_FILTER)
        if self._finish is None or self._finish in _GIVEN_UP:
            return broken("the model's reply ended before it was complete")
        finish = _FINISH.get(self._finish, FinishReason.OTHER)
        return Reply(
            text="".join(self._text),
            reasoning=self._reasoning(),
            tool_calls=tuple(self._calls),
            usage=_total(self._usage),
            # The API knows no finish reason for tool calls.
            finish_reason=FinishReason.TOOL_CALLS if self._calls and finish is FinishReason.STOP else finish,
        )

    def _candidate(self, candidate: "Candidate") -> None:
        if candidate.finish_reason is not None:
            self._finish = str(candidate.finish_reason.value)
            self._why = candidate.finish_message or ""
        for part in (candidate.content and candidate.content.parts) or ():
            self._part(part)

    def _part(self, part: "Part") -> None:
        place = "thinking" if part.thought else "text"
        if part.function_call is not None:
            place = f"call:{self._call(part.function_call)}"
        elif part.text:
            (self._thinking if part.thought else self._text).append(part.text)
            self._on_delta("reasoning" if part.thought else "text", part.text)
        if part.thought_signature:
            self._signatures[place] = part.thought_signature

    def _call(self, call: "FunctionCall") -> str:
        """The call's id: equal for an equal generation, where the API gives none."""
        asked = self._request
        own = call.id or identify(asked.expert_key, asked.generation, len(self._calls))
        self._calls.append(RequestedCall(id=own, name=call.name or "", args=call.args or {}))
        return own

    def _reasoning(self) -> tuple[Reasoning, ...]:
        """The thinking, with its signature; then the signatures of other parts, without any text."""
        signed = {place: signature(place, thought) for place, thought in self._signatures.items()}
        thinking = "".join(self._thinking)
        own = signed.pop("thinking", None)
        first = (Reasoning(text=thinking, signature=own),) if thinking or own else ()
        return (*first, *(Reasoning(text="", signature=other) for other in signed.values()))


def _total(used: "GenerateContentResponseUsageMetadata | None") -> Usage:
    """Figures as for the other providers: input is what was not cached, output includes reasoning."""
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
