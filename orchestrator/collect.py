"""Lines of a Sandbox's stdout to events: each once, in order, none lost.

stdout is the live path and may have gaps, repeats or an early end, or fall silent without one. The spool is written
first, so what stdout lacks stands there (reliability 3.1, 3.2). Everything from a container is a claim: events of
another job, Run or attempt, and whatever follows the terminal event, are refused.
"""

import asyncio
import itertools
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Self

from orchestrator.errors import WireError
from orchestrator.sandbox import Exit
from orchestrator.spool import Spool
from orchestrator.wire.event import Event, TerminalEvent
from orchestrator.wire.line import decode, encode

_LISTENING_SECONDS = 0.5
_DEAF_SECONDS = (0.005, 0.01, 0.02, 0.05)
"""Seconds until the spool is looked at: while stdout tells events; and while nothing comes from it, as it is when a log
cannot be followed yet, longer after each look in vain."""

_WAITING = 64
"""Lines that wait for whoever takes the events; then stdout waits too."""

_AT_ONCE = 256
"""Lines that are taken from the spool before others have their turn, and before more are held."""

_SHOWN = 200


@dataclass(frozen=True, slots=True)
class Collected:
    """An event and the line it came in, without the newline."""

    event: Event
    line: bytes

    @classmethod
    def made_here(cls, event: Event) -> "Collected":
        """An event that the host itself makes."""
        return cls(event, encode(event).rstrip())


@dataclass(frozen=True, slots=True)
class Origin:
    """Whose events are expected."""

    job_id: str
    run_id: str
    attempt: int


@dataclass(slots=True)
class Sequence:
    """Decides for each line what it is: the next event, a repeat, one that comes too early, or nothing of ours."""

    origin: Origin
    note: Callable[[str], None]
    expected: int = 1
    gap: bool = False
    ended: bool = False

    def accept(self, line: bytes) -> Collected | None:
        """Give the event in `line` if it is the next one. Sets `gap` if events before it are missing."""
        if self.ended or not line.strip():
            return None
        try:
            event = decode(line)
        except WireError as error:
            self.note(f"{error}: {line[:_SHOWN]!r}")
            return None
        if (event.job_id, event.run_id, event.attempt) != (self.origin.job_id, self.origin.run_id, self.origin.attempt):
            self.note(f"refused an event of job {event.job_id!r}, run {event.run_id!r}, attempt {event.attempt}")
            return None
        if event.seq is None or event.seq < self.expected:
            return None
        if event.seq > self.expected:
            self.gap = True
            return None
        self.expected += 1
        self.ended = isinstance(event, TerminalEvent)
        return Collected(event, line)


class Collector:
    """The events of one attempt, from both paths. Iteration ends after the terminal event, or once all is over."""

    def __init__(self, spool: Spool, sequence: Sequence) -> None:
        self._spool = spool
        self._sequence = sequence
        self._arrived: asyncio.Queue[bytes | None] = asyncio.Queue(_WAITING)
        self._ready: deque[Collected] = deque()
        self._draining: Iterator[bytes] | None = None
        self._deaf = True
        self._vain = 0
        self._stopped = False
        self._over = False
        self.gone: Exit | None = None
        """How the Sandbox ended, once it has."""

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Collected:
        """Give the next event."""
        while not self._ready:
            if (self._over and self._draining is None) or self._sequence.ended:
                raise StopAsyncIteration
            if self._draining is None:
                # Whether this look is the last is known before it: what was written until then is found.
                self._over = self._stopped
            await self._advance()
        return self._ready.popleft()

    def stop(self) -> None:
        """End the iteration once what is in the spool already has been given."""
        self._stopped = True
        self._look()

    async def follow(self, lines: AsyncGenerator[bytes, None]) -> None:
        """Take the lines of stdout to their end."""
        async with aclosing(lines):
            async for line in lines:
                self._deaf = False
                await self._arrived.put(line)
        self._deaf = True
        self._look()

    def end(self, gone: Exit) -> None:
        """Say that the Sandbox has ended: nothing is written any more."""
        self.gone = gone
        self.stop()

    async def _advance(self) -> None:
        if self._draining is not None:
            await asyncio.sleep(0)
            self._drain(self._draining)
            return
        line = None if self._over else await self._next_line()
        collected = None if line is None else self._sequence.accept(line)
        if collected is not None:
            self._ready.append(collected)
        elif line is None or self._sequence.gap:
            before = self._sequence.expected
            self._drain(self._spool.lines())
            self._vain = 0 if self._sequence.expected > before else self._vain + 1

    def _drain(self, lines: Iterator[bytes]) -> None:
        """Take what the spool has beyond the events accepted so far, some of it at a time."""
        some = list(itertools.islice(lines, _AT_ONCE))
        self._ready.extend(collected for line in some if (collected := self._sequence.accept(line)) is not None)
        self._draining = lines if len(some) == _AT_ONCE else None
        if self._draining is None:
            self._sequence.gap = False

    async def _next_line(self) -> bytes | None:
        """Wait for a line; None says that it is time to look into the spool."""
        if not self._arrived.empty():
            return self._arrived.get_nowait()
        deaf = _DEAF_SECONDS[min(self._vain, len(_DEAF_SECONDS) - 1)]
        try:
            async with asyncio.timeout(deaf if self._deaf else _LISTENING_SECONDS):
                return await self._arrived.get()
        except TimeoutError:
            return None

    def _look(self) -> None:
        if not self._arrived.full():
            self._arrived.put_nowait(None)


@asynccontextmanager
async def collecting(
    lines: AsyncGenerator[bytes, None], ended: Callable[[], Awaitable[Exit]], spool: Spool, sequence: Sequence
) -> AsyncIterator[Collector]:
    """Join stdout and spool of a Sandbox into a Collector; `ended` waits for its end."""
    collector = Collector(spool, sequence)

    async def watch() -> None:
        collector.end(await ended())

    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(collector.follow(lines)), tasks.create_task(watch())]
        yield collector
        for task in running:
            task.cancel()
