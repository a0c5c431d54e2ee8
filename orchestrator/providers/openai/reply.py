"""Build a Reply or a Failure from the chunks of a Chat Completions stream. Pure functions."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from orchestrator.http.server_sent_events import ServerSentEvent
from orchestrator.providers.api import ModelRequest, OnDelta
from orchestrator.providers.failures import broken, context_window_exceeded, invalid_tool_input, is_too_long, refused
from orchestrator.wire.generation import Failure, FinishReason, Reasoning, Reply, RequestedCall
from orchestrator.wire.identity import identify
from orchestrator.wire.usage import Usage

_FINISH = {
    "stop": FinishReason.STOP,
    "tool_calls": FinishReason.TOOL_CALLS,
    "function_call": FinishReason.TOOL_CALLS,
    "length": FinishReason.LENGTH,
    "content_filter": FinishReason.CONTENT_FILTER,
}
_DONE = "[DONE]"
_LASTING = frozenset({"invalid_request_error", "authentication_error", "permission_error", "insufficient_quota"})
_INCOMPLETE = frozenset({"error", "insufficient_system_resource"})
"""Finish reasons with which OpenRouter and DeepSeek report that they failed."""


@dataclass(slots=True)
class _Call:
    id: str = ""
    name: str = ""
    arguments: list[str] = field(default_factory=list)


class ChatReplyStream:
    """A streaming reply. Pass every event to `take`, then call `outcome`."""

    def __init__(self, request: ModelRequest, on_delta: OnDelta) -> None:
        self._request = request
        self._on_delta = on_delta
        self._deltas: dict[str, list[str]] = {"reasoning": [], "text": []}
        self._calls: list[_Call] = []
        self._open: dict[int | None, _Call] = {}
        self._usage: Mapping[str, Any] | None = None
        self._finish: str | None = None
        self._done = False
        self._failure: Failure | None = None

    def take(self, event: ServerSentEvent) -> None:
        """Process one event: a chunk, an error, or the mark of the end.

        Raises:
            ValueError: its data is not JSON.
            LookupError, TypeError, AttributeError: it lacks a required field.
        """
        if event.data.startswith(_DONE):
            self._done = True
            return
        chunk = json.loads(event.data)
        if error := chunk.get("error"):
            self._failure = _stopped(error)
            return
        self._usage = chunk.get("usage") or self._usage
        for choice in chunk["choices"][:1]:
            self._finish = choice.get("finish_reason") or self._finish
            if delta := choice.get("delta"):
                self._delta(delta)

    @property
    def is_complete(self) -> bool:
        """Whether the rest of the stream can be ignored."""
        return self._done or self._failure is not None

    def outcome(self) -> Reply | Failure:
        """Return the result; call it after the last event."""
        if self._failure is not None:
            return self._failure
        if self._finish is None or self._finish in _INCOMPLETE:
            return broken("the model's reply ended before it was complete")
        finish = _FINISH.get(self._finish, FinishReason.OTHER)
        calls: list[RequestedCall] = []
        for index, call in enumerate(self._calls):
            args = _arguments("".join(call.arguments), cut=finish is FinishReason.LENGTH)
            if args is None or not call.name:
                return invalid_tool_input(f"the model's input for tool {call.name!r} is not a JSON object")
            own = call.id or identify(self._request.expert_key, self._request.generation, index)
            calls.append(RequestedCall(id=own, name=call.name, args=args))
        reasoning = "".join(self._deltas["reasoning"])
        return Reply(
            text="".join(self._deltas["text"]),
            reasoning=(Reasoning(text=reasoning),) if reasoning else (),
            tool_calls=tuple(calls),
            usage=_usage_of(self._usage),
            # Some servers send `stop` after tool calls too.
            finish_reason=FinishReason.TOOL_CALLS if calls and finish is FinishReason.STOP else finish,
        )

    def _delta(self, delta: Mapping[str, Any]) -> None:
        # Not fields of OpenAI's API: DeepSeek uses the first name, Ollama and OpenRouter the second.
        self._add_delta("reasoning", delta.get("reasoning_content") or delta.get("reasoning"))
        self._add_delta("text", delta.get("content"))
        # A refusal replaces the text.
        self._add_delta("text", delta.get("refusal"))
        for piece in delta.get("tool_calls") or ():
            self._take_call_piece(piece)

    def _add_delta(self, kind: Literal["reasoning", "text"], text: str | None) -> None:
        if text:
            self._deltas[kind].append(text)
            self._on_delta(kind, text)

    def _take_call_piece(self, piece: Mapping[str, Any]) -> None:
        # Some servers number no calls.
        index, call_id, function = piece.get("index"), piece.get("id"), piece.get("function")
        call = self._open.get(index)
        # Some servers send index 0 for all calls of a reply; a new id marks a new call.
        if call is None or (call_id and call.id and call_id != call.id):
            call = self._open[index] = _Call()
            self._calls.append(call)
        call.id = call.id or call_id or ""
        if function is not None:
            call.name = call.name or function.get("name") or ""
            call.arguments.append(function.get("arguments") or "")


def _arguments(text: str, *, cut: bool) -> dict[str, Any] | None:
    """The tool's input, parsed strictly; None if it is not a JSON object. Input cut for length becomes empty."""
    try:
        args = json.loads(text, parse_constant=_not_json) if text.strip() else {}
    except ValueError:
        return {} if cut else None
    return args if isinstance(args, dict) else None


def _not_json(constant: str) -> None:
    raise ValueError(constant)


def _usage_of(used: Mapping[str, Any] | None) -> Usage:
    """Counts as in Perstack: input is what was not cached, output includes reasoning."""
    if used is None:
        return Usage()
    prompt, output = used.get("prompt_tokens") or 0, used.get("completion_tokens") or 0
    known, details = used.get("prompt_tokens_details") or {}, used.get("completion_tokens_details") or {}
    # DeepSeek has this count in a separate field, not in the details.
    cached = known.get("cached_tokens") or used.get("prompt_cache_hit_tokens") or 0
    return Usage(
        input_tokens=max(prompt - cached, 0),
        output_tokens=output,
        reasoning_tokens=details.get("reasoning_tokens") or 0,
        total_tokens=used.get("total_tokens") or prompt + output,
        cached_input_tokens=cached,
    )


def _stopped(error: Any) -> Failure:
    """An error that the API reported during a stream; retryable unless its type is known to be permanent."""
    known = error if isinstance(error, dict) else {}
    code = None if known.get("code") is None else str(known["code"])
    text = error if isinstance(error, str) else known.get("message")
    message = f"stopped its reply: {text or 'no reason given'}"
    if is_too_long(message, code):
        return context_window_exceeded(f"the model's API {message}")
    if code and code.isdecimal() and len(code) == len("500"):
        return refused(int(code), message).with_(message=f"the model's API {message}")
    kind = known.get("type") or code or "api_error"
    return Failure(name="StreamError", message=f"the model's API {message}", is_retryable=kind not in _LASTING)
