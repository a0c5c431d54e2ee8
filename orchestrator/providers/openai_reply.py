"""Pure: the chunks of a Chat Completions stream, folded into a Reply or a Failure."""

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from orchestrator.providers import ModelRequest, OnDelta
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
_GIVEN_UP = frozenset({"error", "insufficient_system_resource"})
"""Finish reasons by which OpenRouter and DeepSeek say that they could not go on."""


@dataclass(slots=True)
class _Call:
    id: str = ""
    name: str = ""
    arguments: list[str] = field(default_factory=list)


class ReplyStream:
    """A reply as it arrives. Feed it every chunk, then ask for `outcome`."""

    def __init__(self, request: ModelRequest, on_delta: OnDelta) -> None:
        self._request = request
        self._on_delta = on_delta
        self._said: dict[str, list[str]] = {"reasoning": [], "text": []}
        self._calls: list[_Call] = []
        self._open: dict[int, _Call] = {}
        self._usage: CompletionUsage | None = None
        self._finish: str | None = None

    def take(self, chunk: "ChatCompletionChunk") -> None:
        """Take one chunk.

        Raises:
            LookupError, TypeError, AttributeError: it lacks what it must have.
        """
        self._usage = chunk.usage or self._usage
        for choice in chunk.choices[:1]:
            self._finish = choice.finish_reason or self._finish
            if choice.delta is not None:
                self._delta(choice.delta)

    def outcome(self) -> Reply | Failure:
        """What came of it, once no more chunks come."""
        if self._finish is None or self._finish in _GIVEN_UP:
            return broken("the model's reply ended before it was complete")
        finish = _FINISH.get(self._finish, FinishReason.OTHER)
        calls: list[RequestedCall] = []
        for index, call in enumerate(self._calls):
            args = _arguments("".join(call.arguments), cut=finish is FinishReason.LENGTH)
            if args is None or not call.name:
                return invalid_tool_input(f"the model's input for tool {call.name!r} is not a JSON object")
            own = call.id or identify(self._request.expert_key, self._request.generation, index)
            calls.append(RequestedCall(id=own, name=call.name, args=args))
        reasoning = "".join(self._said["reasoning"])
        return Reply(
            text="".join(self._said["text"]),
            reasoning=(Reasoning(text=reasoning),) if reasoning else (),
            tool_calls=tuple(calls),
            usage=_total(self._usage),
            # Some servers say `stop` after tool calls too.
            finish_reason=FinishReason.TOOL_CALLS if calls and finish is FinishReason.STOP else finish,
        )

    def _delta(self, delta: "ChoiceDelta") -> None:
        # No field of OpenAI's own: DeepSeek has the first name, Ollama and OpenRouter the second.
        self._say("reasoning", getattr(delta, "reasoning_content", None) or getattr(delta, "reasoning", None))
        self._say("text", delta.content)
        # A refusal takes the place of the text.
        self._say("text", delta.refusal)
        for piece in delta.tool_calls or ():
            self._piece(piece)

    def _say(self, kind: Literal["reasoning", "text"], text: str | None) -> None:
        if text:
            self._said[kind].append(text)
            self._on_delta(kind, text)

    def _piece(self, piece: "ChoiceDeltaToolCall") -> None:
        call = self._open.get(piece.index)
        # Some servers number all calls of a reply 0; a new id tells them apart.
        if call is None or (piece.id and call.id and piece.id != call.id):
            call = self._open[piece.index] = _Call()
            self._calls.append(call)
        call.id = call.id or piece.id or ""
        if piece.function is not None:
            call.name = call.name or piece.function.name or ""
            call.arguments.append(piece.function.arguments or "")


def _arguments(whole: str, *, cut: bool) -> dict[str, Any] | None:
    """The tool's input, parsed strictly; None if it is not a JSON object. One that was cut for length is empty."""
    try:
        args = json.loads(whole, parse_constant=_not_json) if whole.strip() else {}
    except ValueError:
        return {} if cut else None
    return args if isinstance(args, dict) else None


def _not_json(constant: str) -> None:
    raise ValueError(constant)


def _total(used: "CompletionUsage | None") -> Usage:
    """Figures as Perstack has them: input is what was not cached, output includes reasoning."""
    if used is None:
        return Usage()
    prompt, output = used.prompt_tokens or 0, used.completion_tokens or 0
    known = used.prompt_tokens_details
    # DeepSeek counts beside, not in details.
    cached = (known.cached_tokens if known else None) or getattr(used, "prompt_cache_hit_tokens", None) or 0
    details = used.completion_tokens_details
    return Usage(
        input_tokens=max(prompt - cached, 0),
        output_tokens=output,
        reasoning_tokens=(details.reasoning_tokens if details else None) or 0,
        total_tokens=used.total_tokens or prompt + output,
        cached_input_tokens=cached,
    )
