"""Pieces of a reply as a small number of ordered events (docs/reference/perstack.md#streaming-events)."""

import asyncio
from typing import Literal

from orchestrator.runtime.emit import Emitter
from orchestrator.wire.event import (
    CompleteStreamingReasoning,
    CompleteStreamingRunResult,
    StartStreamingReasoning,
    StartStreamingRunResult,
    StreamReasoning,
    StreamRunResult,
)
from orchestrator.wire.generation import Failure, Reply

_FLUSH_SECONDS = 0.05
_FLUSH_CHARACTERS = 2048

_EVENTS = {
    "reasoning": (StartStreamingReasoning, StreamReasoning, CompleteStreamingReasoning),
    "text": (StartStreamingRunResult, StreamRunResult, CompleteStreamingRunResult),
}


class DeltaStream:
    """The events of one generation; reasoning is complete before the result starts.

    Args:
        emitter: writes the events.
        shows_text: whether this is the Run's result; text of other generations is not streamed.
    """

    def __init__(self, emitter: Emitter, *, shows_text: bool) -> None:
        self._emitter = emitter
        self._shows_text = shows_text
        self._kind: Literal["reasoning", "text"] | None = None
        self._pieces: list[str] = []
        self._buffer = ""
        self._timer: asyncio.TimerHandle | None = None
        self._has_reasoning = False

    def take(self, kind: Literal["reasoning", "text"], text: str) -> None:
        """Process one piece; pieces in quick succession become one event."""
        if kind != self._kind:
            self._complete()
            if kind == "text" and not self._shows_text:
                return
            self._kind = kind
            self._has_reasoning = self._has_reasoning or kind == "reasoning"
            self._emitter.emit(_EVENTS[kind][0])
        self._pieces.append(text)
        self._buffer += text
        if len(self._buffer) >= _FLUSH_CHARACTERS:
            self._flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_FLUSH_SECONDS, self._flush)

    def finish(self, outcome: Reply | Failure) -> None:
        """Complete the open stream with the whole text; reasoning that was never streamed is emitted as a whole.

        Pieces may be missing so far, if they arrived while the link was broken.
        """
        self._complete(outcome if isinstance(outcome, Reply) else None)
        if isinstance(outcome, Reply) and outcome.reasoning and not self._has_reasoning:
            text = "\n".join(block.text for block in outcome.reasoning)
            self._emitter.emit(CompleteStreamingReasoning, text=text)

    def close(self) -> None:
        """Discard pieces that are not written yet."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _flush(self) -> None:
        self.close()
        if self._kind is not None and self._buffer:
            self._emitter.emit(_EVENTS[self._kind][1], delta=self._buffer)
        self._buffer = ""

    def _complete(self, reply: Reply | None = None) -> None:
        self._flush()
        if self._kind is not None:
            text = None if reply is None else _text_of(reply, self._kind)
            self._emitter.emit(_EVENTS[self._kind][2], text=text or "".join(self._pieces))
        self._kind = None
        self._pieces.clear()


def _text_of(reply: Reply, kind: Literal["reasoning", "text"]) -> str:
    return reply.text if kind == "text" else "".join(block.text for block in reply.reasoning)
