"""Where a conversation is shown: lasting lines, and at a terminal the tree of Runs below them, redrawn in place."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self, TextIO

from orchestrator.cli.render import plain, receipt_lines
from orchestrator.cli.transcript import full_lines, lasting
from orchestrator.cli.tree_view import TreeView, tree_lines
from orchestrator.clock import now
from orchestrator.outcome import Outcome
from orchestrator.wire.event import Event
from orchestrator.wire.state_event import CompleteRun
from orchestrator.wire.stream_event import CompleteStreamingRunResult, StartStreamingRunResult, StreamRunResult

_SECONDS_BETWEEN = 0.1
_FALLBACK = os.terminal_size((80, 24))
_SPARE_LINES = 4
"""Lines of the terminal that the tree leaves to what is above it."""


class Screen:
    """Shows one turn. Where `stream` is no terminal there are lines only, and no escape sequence.

    `mask` takes secrets out of what is shown.
    """

    def __init__(self, stream: TextIO, unit: str, *, mask: Callable[[bytes], bytes], verbose: bool = False) -> None:
        self.tree = TreeView()
        self._stream = stream
        self._unit = unit
        self._mask = mask
        self._verbose = verbose
        self._live = stream.isatty()
        self._drawn = 0
        self._arriving = ""
        self._streamed: str | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._held: list[str] | None = None

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
        self._end_arriving()
        self._write(self._erased())

    def say(self, text: str) -> None:
        """Write lines that stay."""
        masked = self._mask(text.encode("utf-8", "replace")).decode("utf-8", "replace")
        lines = f"{plain(masked, keep=chr(10) + chr(9))}\n"
        if self._held is not None:
            self._held.append(lines)
            return
        self._write(self._erased() + lines)

    async def ask(self, question: str, asking: Callable[[str], Awaitable[str | None]]) -> str | None:
        """Have a question asked; until it is answered nothing else is written."""
        self._write(self._erased())
        self._held = []
        try:
            return await asking(question)
        finally:
            held, self._held = self._held, None
            self._write("".join(held))

    def note(self, text: str) -> None:
        """Write a remark, which only a person who looks for trouble wants to see."""
        if self._verbose:
            self.say(text)

    def event(self, event: Event) -> None:
        """Take one more event into what is shown."""
        self.tree = self.tree.with_event(event)
        coordinator = self.tree.is_coordinator(event.run_id)
        if self._live and coordinator and self._streams(event):
            return
        for text in lasting(event, self.tree.expert(event.run_id), is_coordinator=coordinator, verbose=self._verbose):
            self.say(text)

    def finish(self, outcome: Outcome) -> None:
        """Write the tree as it ended, and the receipt."""
        if len(self.tree.nodes) > 1:
            self.say("\n".join(tree_lines(self.tree, self._size().columns - 1, now())))
        self.say("\n".join(receipt_lines(outcome.receipt, self._unit)))

    def _streams(self, event: Event) -> bool:
        """Show text of the coordinator's as it arrives; whether `event` is nothing else."""
        match event:
            case StartStreamingRunResult():
                self._end_arriving()
                self._arriving, self._streamed = f"{plain(event.expert_key)}: ", ""
            case StreamRunResult() if self._streamed is not None:
                self._streamed += event.delta
                done, self._arriving = full_lines(
                    self._arriving + plain(event.delta, keep="\n"), self._size().columns - 1
                )
                for line in done:
                    self.say(line)
            case CompleteStreamingRunResult():
                self._end_arriving()
            case CompleteRun() if event.text == self._streamed:
                self._streamed = None
            case _:
                return False
        return True

    def _end_arriving(self) -> None:
        arriving, self._arriving = self._arriving, ""
        if arriving:
            self.say(arriving)

    def _tick(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(_SECONDS_BETWEEN, self._tick)
        if self._held is not None:
            return
        size = self._size()
        tree = tree_lines(self.tree, size.columns - 1, now(), max(1, size.lines - _SPARE_LINES))
        lines = [self._arriving, *tree] if self._arriving else [*tree]
        erased = self._erased()
        self._drawn = len(lines)
        self._write(erased + "\n".join(lines))

    def _erased(self) -> str:
        """What takes the lines that are drawn off the screen, with the cursor at the end of the last."""
        drawn, self._drawn = self._drawn, 0
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
