"""Pieces of a reply as events (spec 3.3): in order, and few."""

import asyncio
from typing import Literal

from orchestrator.runtime.emit import Emitter
from orchestrator.wire.generation import Failure, Reply
from orchestrator.wire.stream_event import (
    CompleteStreamingReasoning,
    CompleteStreamingRunResult,
    StartStreamingReasoning,
    StartStreamingRunResult,
    StreamReasoning,
    StreamRunResult,
)

_FLUSH_SECONDS = 0.05
_FLUSH_CHARACTERS = 2048

_EVENTS = {
    "reasoning": (StartStreamingReasoning, StreamReasoning, CompleteStreamingReasoning),
    "text": (StartStreamingRunResult, StreamRunResult, CompleteStreamingRunResult),
}


class Stream:
    """The events of one generation; reasoning is complete before the result begins.

    Args:
        emitter: where they go.
        shows_text: whether this is the Run's result; text of other generations is not streamed.
    """

    def __init__(self, emitter: Emitter, *, shows_text: bool) -> None:
        self._emitter = emitter
        self._shows_text = shows_text
        self._kind: Literal["reasoning", "text"] | None = None
        self._whole: list[str] = []
        self._waiting = ""
        self._timer: asyncio.TimerHandle | None = None
        self._reasoned = False

    def take(self, kind: Literal["reasoning", "text"], text: str) -> None:
        """Take one piece; pieces that come close together become one event."""
        if kind != self._kind:
            self._complete()
            if kind == "text" and not self._shows_text:
                return
            self._kind = kind
            self._reasoned = self._reasoned or kind == "reasoning"
            self._emitter.emit(_EVENTS[kind][0])
        self._whole.append(text)
        self._waiting += text
        if len(self._waiting) >= _FLUSH_CHARACTERS:
            self._flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_FLUSH_SECONDS, self._flush)

    def finish(self, outcome: Reply | Failure) -> None:
        """Complete what has begun, with all of it; reasoning that was never streamed is given whole.

        Pieces that came while the link was broken were not told.
        """
        self._complete(outcome if isinstance(outcome, Reply) else None)
        if isinstance(outcome, Reply) and outcome.reasoning and not self._reasoned:
            text = "\n".join(block.text for block in outcome.reasoning)
            self._emitter.emit(CompleteStreamingReasoning, text=text)

    def close(self) -> None:
        """Forget what was not written yet."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _flush(self) -> None:
        self.close()
        if self._kind is not None and self._waiting:
            self._emitter.emit(_EVENTS[self._kind][1], delta=self._waiting)
        self._waiting = ""

    def _complete(self, reply: Reply | None = None) -> None:
        self._flush()
        if self._kind is not None:
            whole = None if reply is None else _whole(reply, self._kind)
            self._emitter.emit(_EVENTS[self._kind][2], text=whole or "".join(self._whole))
        self._kind = None
        self._whole.clear()


def _whole(reply: Reply, kind: Literal["reasoning", "text"]) -> str:
    return reply.text if kind == "text" else "".join(block.text for block in reply.reasoning)
