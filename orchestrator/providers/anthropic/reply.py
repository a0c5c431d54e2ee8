"""Build a Reply or a Failure from the events of a Messages stream. Pure functions.

Unlike Anthropic's SDK they neither accept a truncated stream as complete nor repair corrupt tool input.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from orchestrator.http.server_sent_events import ServerSentEvent
from orchestrator.providers.anthropic.request import REDACTED
from orchestrator.providers.api import OnDelta
from orchestrator.providers.failures import broken, context_window_exceeded, invalid_tool_input
from orchestrator.wire.generation import Failure, FinishReason, Reasoning, Reply, RequestedCall
from orchestrator.wire.usage import Usage

_FINISH = {
    "end_turn": FinishReason.STOP,
    "stop_sequence": FinishReason.STOP,
    "tool_use": FinishReason.TOOL_CALLS,
    "max_tokens": FinishReason.LENGTH,
    "refusal": FinishReason.CONTENT_FILTER,
}
_WINDOW_FULL = "model_context_window_exceeded"
_LASTING = {
    "invalid_request_error",
    "authentication_error",
    "permission_error",
    "billing_error",
    "not_found_error",
    "request_too_large",
}


@dataclass(slots=True)
class _Block:
    type: str
    start: Mapping[str, Any]
    text: list[str] = field(default_factory=list)
    signature: list[str] = field(default_factory=list)

    @property
    def content(self) -> str:
        return "".join(self.text)


class AnthropicReplyStream:
    """A streaming reply. Pass every event to `take`, then call `outcome`."""

    def __init__(self, on_delta: OnDelta) -> None:
        self._on_delta = on_delta
        self._blocks: dict[int, _Block] = {}
        self._usage: dict[str, Any] = {}
        self._stop_reason: str | None = None
        self._stopped = False
        self._failure: Failure | None = None

    def take(self, event: ServerSentEvent) -> None:
        """Process one event. Unknown types are ignored.

        Raises:
            ValueError: its data is not JSON.
            LookupError, TypeError, AttributeError: an event of a known type lacks a required field.
        """
        if event.data:
            self._take(json.loads(event.data))

    def _take(self, event: Mapping[str, Any]) -> None:
        match event["type"]:
            case "message_start":
                self._count(event["message"].get("usage"))
            case "content_block_start":
                start = event["content_block"]
                self._blocks[event["index"]] = opened = _Block(start["type"], start)
                self._add(opened, start.get("text") or start.get("thinking") or "")
            case "content_block_delta":
                self._delta(self._blocks[event["index"]], event["delta"])
            case "message_delta":
                self._stop_reason = event["delta"].get("stop_reason") or self._stop_reason
                self._count(event.get("usage"))
            case "message_stop":
                self._stopped = True
            case "error":
                self._failure = failure_of(event["error"])

    @property
    def is_complete(self) -> bool:
        """Whether the rest of the stream can be ignored."""
        return self._stopped or self._failure is not None

    def outcome(self) -> Reply | Failure:
        """Return the result; call it after the last event."""
        if self._failure is not None:
            return self._failure
        if not self._stopped or self._stop_reason is None:
            return broken("the model's reply ended before it was complete")
        if self._stop_reason == _WINDOW_FULL:
            return context_window_exceeded("its reply was cut")
        calls: list[RequestedCall] = []
        for block in self._ordered("tool_use"):
            args = _arguments(block, cut=_FINISH.get(self._stop_reason) is FinishReason.LENGTH)
            if args is None:
                return invalid_tool_input(f"the model's input for tool {block.start['name']!r} is not a JSON object")
            calls.append(RequestedCall(id=block.start["id"], name=block.start["name"], args=args))
        return Reply(
            text="".join(block.content for block in self._ordered("text")),
            reasoning=tuple(map(_reasoning, self._ordered("thinking", "redacted_thinking"))),
            tool_calls=tuple(calls),
            usage=self._total_usage(),
            finish_reason=_FINISH.get(self._stop_reason, FinishReason.OTHER),
        )

    def _ordered(self, *types: str) -> list[_Block]:
        return [block for _, block in sorted(self._blocks.items()) if block.type in types]

    def _delta(self, block: _Block, delta: Mapping[str, Any]) -> None:
        match delta["type"]:
            case "text_delta":
                self._add(block, delta["text"])
            case "thinking_delta":
                self._add(block, delta["thinking"])
            case "input_json_delta":
                block.text.append(delta["partial_json"])
            case "signature_delta":
                block.signature.append(delta["signature"])

    def _add(self, block: _Block, text: str) -> None:
        if not text:
            return
        block.text.append(text)
        if block.type == "text":
            self._on_delta("text", text)
        elif block.type == "thinking":
            self._on_delta("reasoning", text)

    def _count(self, usage: Mapping[str, Any] | None) -> None:
        """Keep the latest value of each count, since counts are cumulative."""
        self._usage |= {name: value for name, value in (usage or {}).items() if value is not None}

    def _total_usage(self) -> Usage:
        used = self._usage
        fresh = used.get("input_tokens", 0) + used.get("cache_creation_input_tokens", 0)
        cached = used.get("cache_read_input_tokens", 0)
        output = used.get("output_tokens", 0)
        return Usage(
            input_tokens=fresh,
            output_tokens=output,
            reasoning_tokens=used.get("output_tokens_details", {}).get("thinking_tokens") or 0,
            total_tokens=fresh + cached + output,
            cached_input_tokens=cached,
        )


def failure_of(error: Mapping[str, Any]) -> Failure:
    """An error that the API reported during a stream; retryable unless its type is known to be permanent."""
    kind = str(error.get("type") or "api_error")
    return Failure(
        name=error_name(kind),
        message=f"the model's API stopped its reply: {error.get('message') or kind}",
        is_retryable=kind not in _LASTING,
    )


def error_name(kind: str) -> str:
    """`rate_limit_error` as `RateLimitError`."""
    return "".join(word.capitalize() for word in kind.split("_"))


def _reasoning(block: _Block) -> Reasoning:
    if block.type == "redacted_thinking":
        return Reasoning(text="", signature=REDACTED + block.start["data"])
    return Reasoning(text=block.content, signature="".join(block.signature) or block.start.get("signature") or None)


def _arguments(block: _Block, *, cut: bool) -> dict[str, Any] | None:
    """The tool's input, parsed strictly; None if it is not a JSON object. Input cut for length becomes empty."""
    content = block.content
    try:
        args = json.loads(content, parse_constant=_not_json) if content else block.start.get("input", {})
    except ValueError:
        return {} if cut else None
    return args if isinstance(args, dict) else None


def _not_json(constant: str) -> None:
    raise ValueError(constant)
