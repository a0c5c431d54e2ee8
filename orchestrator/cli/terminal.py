"""The live status of a job for a person at a terminal."""

import asyncio
import os
from collections.abc import Callable
from dataclasses import replace
from typing import Self, TextIO

from orchestrator.cli.conversation import question_lines
from orchestrator.cli.render import View, line, plain, receipt_lines
from orchestrator.clock import now
from orchestrator.outcome import Outcome
from orchestrator.wire.event import Event
from orchestrator.wire.job import JobStatus
from orchestrator.wire.message import ToolCall
from orchestrator.wire.platform_event import ProxyAccess
from orchestrator.wire.state_event import CallInteractiveTool

_SECONDS_BETWEEN = 0.1
_CLEAR = "\r\033[K"
_DEFAULT_WIDTH = 80


class Terminal:
    """Keeps one line at the bottom of the terminal up to date, and writes lasting lines above it.

    `hide` takes secrets out of what is written. Without `live` there is no such line: something else is written there.
    """

    def __init__(  # noqa: PLR0913 - where to write, what of, and how
        self,
        stream: TextIO,
        unit: str,
        *,
        expert_key: str,
        hide: Callable[[str], str],
        live: bool = True,
        verbose: bool = False,
    ) -> None:
        self._stream = stream
        self._unit = unit
        self._expert_key = expert_key
        self._hide = hide
        self._live = live
        self._clear = _CLEAR if live else ""
        self._verbose = verbose
        self._view = View(began=now())
        self._timer: asyncio.TimerHandle | None = None
        self._question: ToolCall | None = None

    async def prepare(self) -> None:
        """Nothing is needed first."""

    def __enter__(self) -> Self:
        if self._live:
            self._tick()
        return self

    def __exit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._write(self._clear)

    def say(self, text: str) -> None:
        """Write a line that stays."""
        cleaned = plain(self._hide(text), keep="\n")
        self._write(f"{self._clear}perstack-orch: {cleaned}\n")

    def warn(self, text: str) -> None:
        """Write a warning."""
        self.say(f"warning: {text}")

    def note(self, text: str) -> None:
        """Write a remark, which only a person who looks for trouble wants to see."""
        if self._verbose:
            self.say(text)

    def event(self, event: Event) -> None:
        """Take one more event into the status."""
        self._view = self._view.with_event(event)
        if isinstance(event, CallInteractiveTool):
            self._question = event.tool_call
        if isinstance(event, ProxyAccess) and event.action == "blocked":
            self.warn(f"{event.domain}:{event.port} was blocked: {event.reason or 'nobody declared it'}")

    def finish(self, outcome: Outcome, expert_key: str = "") -> None:
        """Write the result, or what the Expert asks, and the receipt; `expert_key` is whose, if it was not known."""
        self._expert_key = expert_key or self._expert_key
        self._write(self._clear)
        self._view = replace(self._view, working={})
        if outcome.text:
            text = plain(outcome.text, keep="\n\t")
            self._write(f"{plain(self._expert_key)}: {text}\n\n")
        if outcome.status is JobStatus.STOPPED_BY_INTERACTIVE_TOOL and self._question is not None:
            question = "\n".join(question_lines(self._expert_key, self._question))
            self._write(f"{self._hide(question)}\n\n")
        for text in receipt_lines(outcome.receipt, self._unit):
            self._write(f"{text}\n")

    def _tick(self) -> None:
        self._write(_CLEAR + line(self._view, _width(self._stream) - 1, now()))
        self._timer = asyncio.get_running_loop().call_later(_SECONDS_BETWEEN, self._tick)

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


def _width(stream: TextIO) -> int:
    try:
        return os.get_terminal_size(stream.fileno()).columns or _DEFAULT_WIDTH
    except OSError:
        return _DEFAULT_WIDTH
