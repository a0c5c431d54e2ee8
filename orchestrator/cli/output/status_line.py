"""The live status of a job at a terminal."""

import asyncio
import os
from collections.abc import Callable
from dataclasses import replace
from typing import Self, TextIO

from orchestrator.cli.output.render import JobView, plain, question_lines, receipt_lines, status_text
from orchestrator.jobs.outcome import Outcome
from orchestrator.units import now
from orchestrator.wire.event import CallInteractiveTool, Event, ProxyAccess
from orchestrator.wire.job_record import JobStatus
from orchestrator.wire.message import ToolCall

_SECONDS_BETWEEN = 0.1
_CLEAR = "\r\033[K"
_DEFAULT_WIDTH = 80


class StatusLine:
    """Keeps one line at the bottom of the terminal up to date, and writes permanent lines above it.

    `hide` masks secrets. Without `live` there is no status line, because events go to the same terminal.
    """

    def __init__(  # noqa: PLR0913 - where to write, about what, and how
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
        self._view = JobView(began=now())
        self._timer: asyncio.TimerHandle | None = None
        self._question: ToolCall | None = None

    async def prepare(self) -> None:
        """Do nothing: no import is needed before the first line."""

    def __enter__(self) -> Self:
        if self._live:
            self._tick()
        return self

    def __exit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._write(self._clear)

    def info(self, text: str) -> None:
        """Write a permanent line."""
        cleaned = plain(self._hide(text), keep="\n")
        self._write(f"{self._clear}perstack-orch: {cleaned}\n")

    def warn(self, text: str) -> None:
        """Write a warning."""
        self.info(f"warning: {text}")

    def note(self, text: str) -> None:
        """Write a detail, with --verbose only."""
        if self._verbose:
            self.info(text)

    def event(self, event: Event) -> None:
        """Update the status with one more event."""
        self._view = self._view.with_event(event)
        if isinstance(event, CallInteractiveTool):
            self._question = event.tool_call
        if isinstance(event, ProxyAccess) and event.action == "blocked":
            self.warn(f"{event.domain}:{event.port} was blocked: {event.reason or 'the host is not declared'}")

    def finish(self, outcome: Outcome, expert_key: str = "") -> None:
        """Write the result or the Expert's question, and the receipt; `expert_key` is needed if it was unknown."""
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
        self._write(_CLEAR + status_text(self._view, _width(self._stream) - 1, now()))
        self._timer = asyncio.get_running_loop().call_later(_SECONDS_BETWEEN, self._tick)

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


def _width(stream: TextIO) -> int:
    try:
        return os.get_terminal_size(stream.fileno()).columns or _DEFAULT_WIDTH
    except OSError:
        return _DEFAULT_WIDTH
