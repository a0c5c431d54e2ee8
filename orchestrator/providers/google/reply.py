"""Build a Reply or a Failure from the chunks of a Gemini stream. Pure functions."""

import json
from collections.abc import Mapping
from typing import Any

from orchestrator.http.server_sent_events import ServerSentEvent
from orchestrator.providers.api import ModelRequest, OnDelta
from orchestrator.providers.failures import broken, invalid_tool_input
from orchestrator.providers.google.errors import api_error
from orchestrator.providers.google.request import decode_base64, signature
from orchestrator.wire.generation import Failure, FinishReason, Reasoning, Reply, RequestedCall
from orchestrator.wire.identity import identify
from orchestrator.wire.usage import Usage

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
_CONTINUES = "CONTINUATION"
_UNKNOWN = 500
"""The status of an error that has none."""
_INCOMPLETE = frozenset({"MALFORMED_RESPONSE", "FINISH_REASON_UNSPECIFIED"})
# Stored in records, so it keeps this name.
_REASONING_KEY = "thinking"


class GoogleReplyStream:
    """A streaming reply. Pass every event to `take`, then call `outcome`.

    `continuation` is the token with which the API continues a reply that it has cut at its limit for one request; pass
    the events of that request to this stream, too.
    """

    def __init__(self, request: ModelRequest, on_delta: OnDelta) -> None:
        self._request = request
        self._on_delta = on_delta
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._signatures: dict[str, bytes] = {}
        self._calls: list[RequestedCall] = []
        self._used_before = Usage()
        self._usage = Usage()
        self._finish: str | None = None
        self._finish_message = ""
        self._blocked = False
        self._failure: Failure | None = None
        self.continuation: str | None = None

    def take(self, event: ServerSentEvent) -> None:
        """Process one event: a chunk or an error.

        Raises:
            ValueError: its data is not JSON.
            LookupError, TypeError, AttributeError: a field has another type than the API's.
        """
        chunk = json.loads(event.data)
        if error := chunk.get("error"):
            code = error.get("code") if isinstance(error, dict) else None
            self._failure = api_error(int(code or _UNKNOWN), chunk, {})
            return
        if (used := chunk.get("usageMetadata")) is not None:
            self._usage = _usage_of(used)
        if (chunk.get("promptFeedback") or {}).get("blockReason") is not None:
            self._blocked = True
        for candidate in (chunk.get("candidates") or ())[:1]:
            self._take_candidate(candidate)

    @property
    def is_complete(self) -> bool:
        """Whether the rest of the stream can be ignored."""
        return self._failure is not None

    def continue_reply(self) -> None:
        """Prepare for the request that continues the reply: it counts its own tokens."""
        self._used_before += self._usage
        self._usage = Usage()
        self._finish = self.continuation = None

    def outcome(self) -> Reply | Failure:
        """Return the result; call it after the last event."""
        if self._failure is not None:
            return self._failure
        if self._finish in _BAD_CALL:
            return invalid_tool_input(
                f"the model wrote a tool call that cannot be parsed: {self._finish_message or self._finish}"
            )
        if self._blocked and self._finish is None:
            return Reply(usage=self._used_before + self._usage, finish_reason=FinishReason.CONTENT_FILTER)
        if self._finish is None or self._finish in _INCOMPLETE:
            return broken("the model's reply ended before it was complete")
        finish = _FINISH.get(self._finish, FinishReason.OTHER)
        return Reply(
            text="".join(self._text),
            reasoning=self._reasoning_blocks(),
            tool_calls=tuple(self._calls),
            usage=self._used_before + self._usage,
            # The API has no finish reason for tool calls.
            finish_reason=FinishReason.TOOL_CALLS if self._calls and finish is FinishReason.STOP else finish,
        )

    def _take_candidate(self, candidate: Mapping[str, Any]) -> None:
        if (finish := candidate.get("finishReason")) is not None:
            self._finish = str(finish).upper()
            self._finish_message = candidate.get("finishMessage") or ""
        if self._finish == _CONTINUES:
            self.continuation = candidate.get("continuationToken") or self.continuation
        for part in (candidate.get("content") or {}).get("parts") or ():
            self._take_part(part)

    def _take_part(self, part: Mapping[str, Any]) -> None:
        is_thought, text = part.get("thought"), part.get("text")
        key = _REASONING_KEY if is_thought else "text"
        if (call := part.get("functionCall")) is not None:
            key = f"call:{self._add_call(call)}"
        elif text:
            (self._reasoning if is_thought else self._text).append(text)
            self._on_delta("reasoning" if is_thought else "text", text)
        if signed := part.get("thoughtSignature"):
            self._signatures[key] = decode_base64(signed)

    def _add_call(self, call: Mapping[str, Any]) -> str:
        """Add the call, and return its id. Without an id from the API, the id is derived from the request."""
        request = self._request
        call_id = call.get("id") or identify(request.expert_key, request.generation, len(self._calls))
        args = call.get("args") or {}
        self._calls.append(RequestedCall(id=call_id, name=call.get("name") or "", args=dict(args)))
        return str(call_id)

    def _reasoning_blocks(self) -> tuple[Reasoning, ...]:
        """The reasoning with its signature, then the signatures of other parts, without text."""
        others = {key: signature(key, thought) for key, thought in self._signatures.items()}
        text, signed = "".join(self._reasoning), others.pop(_REASONING_KEY, None)
        first = (Reasoning(text=text, signature=signed),) if text or signed else ()
        return (*first, *(Reasoning(text="", signature=other) for other in others.values()))


def _usage_of(used: Mapping[str, Any]) -> Usage:
    """Counts as for the other providers: input is what was not cached, output includes reasoning."""
    prompt = (used.get("promptTokenCount") or 0) + (used.get("toolUsePromptTokenCount") or 0)
    cached, thoughts = used.get("cachedContentTokenCount") or 0, used.get("thoughtsTokenCount") or 0
    output = (used.get("candidatesTokenCount") or 0) + thoughts
    return Usage(
        input_tokens=max(prompt - cached, 0),
        output_tokens=output,
        reasoning_tokens=thoughts,
        total_tokens=used.get("totalTokenCount") or prompt + output,
        cached_input_tokens=cached,
    )
