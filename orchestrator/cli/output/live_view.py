"""The view of a conversation: permanent lines, and at a terminal the live tree of Runs below them."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self, TextIO

from orchestrator.cli.output.render import plain, receipt_lines
from orchestrator.cli.output.transcript import full_lines, transcript_lines
from orchestrator.cli.output.tree_view import TreeView, tree_lines
from orchestrator.jobs.outcome import Outcome
from orchestrator.units import now
from orchestrator.wire.event import (
    CompleteRun,
    CompleteStreamingRunResult,
    Event,
    StartStreamingRunResult,
    StreamRunResult,
)

_SECONDS_BETWEEN = 0.1
_FALLBACK = os.terminal_size((80, 24))
_SPARE_LINES = 4
"""Terminal lines that the tree leaves to the lines above it."""


class LiveView:
    """Shows one turn. If `stream` is not a terminal, there are only permanent lines and no escape sequences.

    `mask` masks secrets.
    """

    def __init__(self, stream: TextIO, unit: str, *, mask: Callable[[bytes], bytes], verbose: bool = False) -> None:
        self.tree = TreeView()
        self._stream = stream
        self._unit = unit
        self._mask = mask
        self._verbose = verbose
        self._live = stream.isatty()
        self._drawn_lines = 0
        self._partial_line = ""
        self._streamed: str | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._held_output: list[str] | None = None

    def __enter__(self) -> Self:
        if self._live:
            self._tick()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._end_partial_line()
        self._write(self._erased())

    def info(self, text: str) -> None:
        """Write permanent lines."""
        masked = self._mask(text.encode("utf-8", "replace")).decode("utf-8", "replace")
        lines = f"{plain(masked, keep=chr(10) + chr(9))}\n"
        if self._held_output is not None:
            self._held_output.append(lines)
            return
        self._write(self._erased() + lines)

    def warn(self, text: str) -> None:
        """Write a warning."""
        self.info(f"warning: {text}")

    async def ask(self, question: str, read_answer: Callable[[str], Awaitable[str | None]]) -> str | None:
        """Ask a question with `read_answer`; other output waits until it is answered."""
        self._write(self._erased())
        self._held_output = []
        try:
            return await read_answer(question)
        finally:
            held, self._held_output = self._held_output, None
            self._write("".join(held))

    def note(self, text: str) -> None:
        """Write a detail, with --verbose only."""
        if self._verbose:
            self.info(text)

    def event(self, event: Event) -> None:
        """Update the view with one more event."""
        self.tree = self.tree.with_event(event)
        coordinator = self.tree.is_coordinator(event.run_id)
        if self._live and coordinator and self._streams(event):
            return
        for text in transcript_lines(
            event, self.tree.expert(event.run_id), is_coordinator=coordinator, verbose=self._verbose
        ):
            self.info(text)

    def finish(self, outcome: Outcome) -> None:
        """Write the final tree and the receipt."""
        if len(self.tree.nodes) > 1:
            self.info("\n".join(tree_lines(self.tree, self._size().columns - 1, now())))
        self.info("\n".join(receipt_lines(outcome.receipt, self._unit)))

    def _streams(self, event: Event) -> bool:
        """Show the coordinator Expert's text as it arrives; return whether that was all of `event`."""
        match event:
            case StartStreamingRunResult():
                self._end_partial_line()
                self._partial_line, self._streamed = f"{plain(event.expert_key)}: ", ""
            case StreamRunResult() if self._streamed is not None:
                self._streamed += event.delta
                done, self._partial_line = full_lines(
                    self._partial_line + plain(event.delta, keep="\n"), self._size().columns - 1
                )
                for line in done:
                    self.info(line)
            case CompleteStreamingRunResult():
                self._end_partial_line()
            case CompleteRun() if event.text == self._streamed:
                self._streamed = None
            case _:
                return False
        return True

    def _end_partial_line(self) -> None:
        partial, self._partial_line = self._partial_line, ""
        if partial:
            self.info(partial)

    def _tick(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(_SECONDS_BETWEEN, self._tick)
        if self._held_output is not None:
            return
        size = self._size()
        tree = tree_lines(self.tree, size.columns - 1, now(), max(1, size.lines - _SPARE_LINES))
        lines = [self._partial_line, *tree] if self._partial_line else [*tree]
        erased = self._erased()
        self._drawn_lines = len(lines)
        self._write(erased + "\n".join(lines))

    def _erased(self) -> str:
        """Return the sequence that erases the drawn lines; the cursor is at the end of the last."""
        drawn, self._drawn_lines = self._drawn_lines, 0
        return "\r" + "\033[A" * (drawn - 1) + "\033[J" if drawn else ""

    def _size(self) -> os.terminal_size:
        try:
            size = os.get_terminal_size(self._stream.fileno()) if self._live else _FALLBACK
        except OSError:
            return _FALLBACK
        return os.terminal_size((size.columns or _FALLBACK.columns, size.lines or _FALLBACK.lines))

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()
