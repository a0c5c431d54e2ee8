"""Build a Reply or a Failure from the chunks of a Chat Completions stream. Pure functions."""

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from orchestrator.providers.api import ModelRequest, OnDelta
from orchestrator.providers.failures import broken, invalid_tool_input
from orchestrator.wire.generation import Failure, FinishReason, Reasoning, Reply, RequestedCall
from orchestrator.wire.identity import identify
from orchestrator.wire.usage import Usage

if TYPE_CHECKING:
    from openai.types import CompletionUsage
    from openai.types.chat import ChatCompletionChunk
    from openai.types.chat.chat_completion_chunk import ChoiceDelta, ChoiceDeltaToolCall

_FINISH = {
    "stop": FinishReason.STOP,
    "tool_calls": FinishReason.TOOL_CALLS,
    "function_call": FinishReason.TOOL_CALLS,
    "length": FinishReason.LENGTH,
    "content_filter": FinishReason.CONTENT_FILTER,
}
_INCOMPLETE = frozenset({"error", "insufficient_system_resource"})
"""Finish reasons with which OpenRouter and DeepSeek report that they failed."""


@dataclass(slots=True)
class _Call:
    id: str = ""
    name: str = ""
    arguments: list[str] = field(default_factory=list)


class ChatReplyStream:
    """A streaming reply. Pass every chunk to `take`, then call `outcome`."""

    def __init__(self, request: ModelRequest, on_delta: OnDelta) -> None:
        self._request = request
        self._on_delta = on_delta
        self._deltas: dict[str, list[str]] = {"reasoning": [], "text": []}
        self._calls: list[_Call] = []
        self._open: dict[int, _Call] = {}
        self._usage: CompletionUsage | None = None
        self._finish: str | None = None

    def take(self, chunk: "ChatCompletionChunk") -> None:
        """Process one chunk.

        Raises:
            LookupError, TypeError, AttributeError: it lacks a required field.
        """
        self._usage = chunk.usage or self._usage
        for choice in chunk.choices[:1]:
            self._finish = choice.finish_reason or self._finish
            if choice.delta is not None:
                self._delta(choice.delta)

    def outcome(self) -> Reply | Failure:
        """Return the result; call it after the last chunk."""
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

    def _delta(self, delta: "ChoiceDelta") -> None:
        # Not fields of OpenAI's API: DeepSeek uses the first name, Ollama and OpenRouter the second.
        self._add_delta("reasoning", getattr(delta, "reasoning_content", None) or getattr(delta, "reasoning", None))
        self._add_delta("text", delta.content)
        # A refusal replaces the text.
        self._add_delta("text", delta.refusal)
        for piece in delta.tool_calls or ():
            self._take_call_piece(piece)

    def _add_delta(self, kind: Literal["reasoning", "text"], text: str | None) -> None:
        if text:
            self._deltas[kind].append(text)
            self._on_delta(kind, text)

    def _take_call_piece(self, piece: "ChoiceDeltaToolCall") -> None:
        call = self._open.get(piece.index)
        # Some servers send index 0 for all calls of a reply; a new id marks a new call.
        if call is None or (piece.id and call.id and piece.id != call.id):
            call = self._open[piece.index] = _Call()
            self._calls.append(call)
        call.id = call.id or piece.id or ""
        if piece.function is not None:
            call.name = call.name or piece.function.name or ""
            call.arguments.append(piece.function.arguments or "")


def _arguments(text: str, *, cut: bool) -> dict[str, Any] | None:
    """The tool's input, parsed strictly; None if it is not a JSON object. Input cut for length becomes empty."""
    try:
        args = json.loads(text, parse_constant=_not_json) if text.strip() else {}
    except ValueError:
        return {} if cut else None
    return args if isinstance(args, dict) else None


def _not_json(constant: str) -> None:
    raise ValueError(constant)


def _usage_of(used: "CompletionUsage | None") -> Usage:
    """Counts as in Perstack: input is what was not cached, output includes reasoning."""
    if used is None:
        return Usage()
    prompt, output = used.prompt_tokens or 0, used.completion_tokens or 0
    known = used.prompt_tokens_details
    # DeepSeek has this count in a separate field, not in the details.
    cached = (known.cached_tokens if known else None) or getattr(used, "prompt_cache_hit_tokens", None) or 0
    details = used.completion_tokens_details
    return Usage(
        input_tokens=max(prompt - cached, 0),
        output_tokens=output,
        reasoning_tokens=(details.reasoning_tokens if details else None) or 0,
        total_tokens=used.total_tokens or prompt + output,
        cached_input_tokens=cached,
    )
