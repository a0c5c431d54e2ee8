"""Lines of a Sandbox's stdout to events: each once, in order, none lost.

stdout is the live path and may have gaps, repeats or an early end. The spool is written first, so what stdout lacks
stands there (reliability 3.1, 3.2). Everything from a container is a claim: events of another job, Run or attempt,
and whatever follows the terminal event, are refused.
"""

import os
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field

from orchestrator.errors import WireError
from orchestrator.wire.event import Event, TerminalEvent
from orchestrator.wire.line import decode, encode

SPOOL_BYTES = 1024 * 1024 * 1024
"""How much of a spool is ever read; a container gone wild cannot fill the store."""

_CHUNK = 256 * 1024


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
            self.note(f"{error}: {line[:200]!r}")
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


@dataclass(slots=True)
class Spool:
    """Reads whole lines from a spool as it grows, through a descriptor opened before the container could touch it.

    `tampered` is a sentence once the file shrank or its lines broke the bound.
    """

    fd: int
    line_bytes: int
    offset: int = 0
    tampered: str | None = None
    _rest: bytes = field(default=b"", repr=False)

    def lines(self) -> Iterator[bytes]:
        """Give the lines written since the last call, without newlines. A torn last line waits for its newline."""
        size = os.fstat(self.fd).st_size
        if size < self.offset:
            self.tampered = f"the event spool shrank from {self.offset} to {size} bytes"
        while self.tampered is None and self.offset < SPOOL_BYTES:
            chunk = os.pread(self.fd, _CHUNK, self.offset)
            if not chunk:
                return
            self.offset += len(chunk)
            *whole, self._rest = (self._rest + chunk).split(b"\n")
            yield from whole
            if len(self._rest) > self.line_bytes:
                self.tampered = f"a line of the event spool is over {self.line_bytes} bytes"


async def collect(lines: AsyncIterator[bytes], spool: Spool, sequence: Sequence) -> AsyncIterator[Collected]:
    """Join both paths into each event once and in order. Ends after the terminal event, or when stdout and spool do."""
    async for line in lines:
        collected = sequence.accept(line)
        if collected is not None:
            yield collected
        elif sequence.gap:
            sequence.gap = False
            for missed in drain(spool, sequence):
                yield missed
        if sequence.ended:
            return
    for missed in drain(spool, sequence):
        yield missed


def drain(spool: Spool, sequence: Sequence) -> Iterator[Collected]:
    """Give what the spool has beyond the events accepted so far."""
    for line in spool.lines():
        collected = sequence.accept(line)
        if collected is not None:
            yield collected
    sequence.gap = False
