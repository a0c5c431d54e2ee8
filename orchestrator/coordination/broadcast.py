"""A job's events for whoever watches, from any position: the newest from memory, the others from the records."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field

from orchestrator.coordination.messages import BEAT_SECONDS, EVENT, Beat, Began, Ended, Message, Remark
from orchestrator.store import Recorded

_RECENT = 2048
"""Events in memory; who is further behind reads the records."""

_REMARKS = 512

Stored = Callable[[], Iterator[Recorded]]
"""Reads the events in the records, by position."""


@dataclass(slots=True)
class Broadcast:
    """What there is to be told; `began` says where this coordinator's Job did."""

    stored: Stored
    began: Began
    _recent: deque[tuple[int, bytes]] = field(default_factory=lambda: deque(maxlen=_RECENT))
    _remarks: deque[Remark] = field(default_factory=lambda: deque(maxlen=_REMARKS))
    _said: int = 0
    _ended: Ended | None = None
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def event(self, recorded: Recorded) -> None:
        """Tell an event."""
        self._recent.append((recorded.event.position or 0, recorded.line))
        self._wake()

    def remark(self, level: str, text: str) -> None:
        """Tell something for stderr."""
        self._said += 1
        self._remarks.append(Remark(number=self._said, level=level, text=text))
        self._wake()

    def end(self, ended: Ended) -> None:
        """Tell that there is no more."""
        self._ended = ended
        self._wake()

    async def lines(self, after: int | None, said: int) -> AsyncIterator[bytes]:
        """Give all that there is to be told to one watcher, a line each, until it has ended."""
        position = self.began.after if after is None else after
        yield line_of(self.began)
        while True:
            changed, ended = self._changed, self._ended
            for remark in [each for each in self._remarks if each.number > said]:
                said = remark.number
                yield line_of(remark)
            for at, line in self._after(position):
                position = at
                yield EVENT + line + b"\n"
            if ended is not None:
                yield line_of(ended)
                return
            if changed is self._changed:
                with suppress(TimeoutError):
                    async with asyncio.timeout(BEAT_SECONDS):
                        await changed.wait()
                    continue
                yield line_of(Beat())

    def _after(self, position: int) -> Iterator[tuple[int, bytes]]:
        recent = list(self._recent)
        if not recent or recent[0][0] > position + 1:
            first = recent[0][0] if recent else None
            for recorded in self.stored():
                at = recorded.event.position or 0
                if first is not None and at >= first:
                    break
                if at > position:
                    yield at, recorded.line
        yield from ((at, line) for at, line in recent if at > position)

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


def line_of(message: Message) -> bytes:
    """Write a message as the line that it is sent as."""
    return message.to_json() + b"\n"
