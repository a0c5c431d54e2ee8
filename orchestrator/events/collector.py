"""Turns lines of a Sandbox's stdout into events: each once, in order, none lost.

stdout is the live path; it may have gaps or repeats, end early, or go silent without ending. The spool is written
first, so it has what stdout lacks. A container's lines are only claims: events of another job, Run or attempt, and any
after the terminal event, are refused.

See docs/reference/reliability.md#sequence-numbers and docs/reference/reliability.md#spool.
"""

import asyncio
import itertools
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Self

from msgspec.structs import astuple

from orchestrator.errors import WireError
from orchestrator.events.spool import Spool
from orchestrator.log import get_logger
from orchestrator.sandbox.api import Exit
from orchestrator.wire.event import TerminalEvent
from orchestrator.wire.identity import AttemptRef
from orchestrator.wire.line import EventLine, decode

_log = get_logger(__name__)
_ACTIVE_STDOUT_SECONDS = 0.5
_SILENT_STDOUT_SECONDS = (0.005, 0.01, 0.02, 0.05)
"""Seconds until the spool is polled: while stdout delivers events; and while stdout is silent, for example before its
log can be followed, longer after each poll without result."""

_QUEUE_LINES = 64
"""Lines that wait for the consumer of the events; with more, stdout waits too."""

_BATCH_LINES = 256
"""Lines taken from the spool at once, before other tasks run and before more lines are held in memory."""

_LOGGED_BYTES = 200


@dataclass(slots=True)
class EventSequencer:
    """Classifies each line: the next event, a repeat, one that comes too early, or no event of this attempt."""

    attempt: AttemptRef
    expected: int = 1
    gap: bool = False
    ended: bool = False

    def accept(self, line: bytes) -> EventLine | None:
        """Return the event in `line` if it is the next one. Sets `gap` if events before it are missing."""
        if self.ended or not line.strip():
            return None
        try:
            event = decode(line)
        except WireError as error:
            _log.debug("%s: %r", error, line[:_LOGGED_BYTES])
            return None
        if (event.job_id, event.run_id, event.attempt) != astuple(self.attempt):
            _log.debug("refused an event of job %r, run %r, attempt %s", event.job_id, event.run_id, event.attempt)
            return None
        if event.seq is None or event.seq < self.expected:
            return None
        if event.seq > self.expected:
            self.gap = True
            return None
        self.expected += 1
        self.ended = isinstance(event, TerminalEvent)
        return EventLine(event, line)


class Collector:
    """The events of one attempt, from both paths. Iteration ends after the terminal event, or after the last line."""

    def __init__(self, spool: Spool, sequence: EventSequencer) -> None:
        self._spool = spool
        self._sequence = sequence
        self._queue: asyncio.Queue[bytes | None] = asyncio.Queue(_QUEUE_LINES)
        self._ready: deque[EventLine] = deque()
        self._draining: Iterator[bytes] | None = None
        self._stdout_silent = True
        self._empty_polls = 0
        self._stopped = False
        self._is_last_poll = False
        self.exit: Exit | None = None
        """How the Sandbox ended, once it has."""

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> EventLine:
        """Return the next event."""
        while not self._ready:
            if (self._is_last_poll and self._draining is None) or self._sequence.ended:
                raise StopAsyncIteration
            if self._draining is None:
                # Decided before the poll: whether it is the last. Everything written until then is found.
                self._is_last_poll = self._stopped
            await self._advance()
        return self._ready.popleft()

    def stop(self) -> None:
        """End the iteration after the events that the spool has by now."""
        self._stopped = True
        self._wake()

    async def follow(self, lines: AsyncGenerator[bytes, None]) -> None:
        """Read the lines of stdout to their end."""
        async with aclosing(lines):
            async for line in lines:
                self._stdout_silent = False
                await self._queue.put(line)
        self._stdout_silent = True
        self._wake()

    def end(self, exit_: Exit) -> None:
        """Record that the Sandbox has ended and writes no more."""
        self.exit = exit_
        self.stop()

    async def _advance(self) -> None:
        if self._draining is not None:
            await asyncio.sleep(0)
            self._drain(self._draining)
            return
        line = None if self._is_last_poll else await self._next_line()
        collected = None if line is None else self._sequence.accept(line)
        if collected is not None:
            self._ready.append(collected)
        elif line is None or self._sequence.gap:
            before = self._sequence.expected
            self._drain(self._spool.lines())
            self._empty_polls = 0 if self._sequence.expected > before else self._empty_polls + 1

    def _drain(self, lines: Iterator[bytes]) -> None:
        """Accept the spool's events after those accepted so far, some at a time."""
        some = list(itertools.islice(lines, _BATCH_LINES))
        self._ready.extend(collected for line in some if (collected := self._sequence.accept(line)) is not None)
        self._draining = lines if len(some) == _BATCH_LINES else None
        if self._draining is None:
            self._sequence.gap = False

    async def _next_line(self) -> bytes | None:
        """Wait for a line; None means that the spool must be polled."""
        if not self._queue.empty():
            return self._queue.get_nowait()
        silence = _SILENT_STDOUT_SECONDS[min(self._empty_polls, len(_SILENT_STDOUT_SECONDS) - 1)]
        try:
            async with asyncio.timeout(silence if self._stdout_silent else _ACTIVE_STDOUT_SECONDS):
                return await self._queue.get()
        except TimeoutError:
            return None

    def _wake(self) -> None:
        if not self._queue.full():
            self._queue.put_nowait(None)


@asynccontextmanager
async def collect(
    lines: AsyncGenerator[bytes, None], ended: Callable[[], Awaitable[Exit]], spool: Spool, sequence: EventSequencer
) -> AsyncIterator[Collector]:
    """Join stdout and spool of a Sandbox into a Collector; `ended` waits for the Sandbox's end."""
    collector = Collector(spool, sequence)

    async def watch() -> None:
        collector.end(await ended())

    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(collector.follow(lines)), tasks.create_task(watch())]
        yield collector
        for task in running:
            task.cancel()
