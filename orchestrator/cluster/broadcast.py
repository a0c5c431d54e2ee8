"""A job's events for watchers, from any position: recent ones from memory, older ones from the records."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field

from orchestrator.cluster.protocol import EVENT, HEARTBEAT_SECONDS, Heartbeat, JobEnded, JobStarted, LogMessage, Message
from orchestrator.wire.line import EventLine

_RECENT = 2048
"""Events in memory; a watcher that is further behind reads the records."""

_LOG_MESSAGES = 512

Stored = Callable[[], Iterator[EventLine]]
"""Returns the events in the records, by position."""


@dataclass(slots=True)
class Broadcast:
    """The messages for watchers; `began` is the position where this coordinator's Job began."""

    stored: Stored
    began: JobStarted
    _recent: deque[tuple[int, bytes]] = field(default_factory=lambda: deque(maxlen=_RECENT))
    _log_messages: deque[LogMessage] = field(default_factory=lambda: deque(maxlen=_LOG_MESSAGES))
    _last_number: int = 0
    _ended: JobEnded | None = None
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def event(self, recorded: EventLine) -> None:
        """Publish an event."""
        self._recent.append((recorded.event.position or 0, recorded.line))
        self._wake()

    def log(self, level: str, text: str) -> None:
        """Publish a line for stderr."""
        self._last_number += 1
        self._log_messages.append(LogMessage(number=self._last_number, level=level, text=text))
        self._wake()

    def end(self, ended: JobEnded) -> None:
        """Publish the end; nothing follows it."""
        self._ended = ended
        self._wake()

    async def lines(self, after: int | None, last_log_number: int) -> AsyncIterator[bytes]:
        """Yield all messages for one watcher, a line each, until the end."""
        position = self.began.after if after is None else after
        yield line_of(self.began)
        while True:
            changed, ended = self._changed, self._ended
            for message in [each for each in self._log_messages if each.number > last_log_number]:
                last_log_number = message.number
                yield line_of(message)
            for at, line in self._after(position):
                position = at
                yield EVENT + line + b"\n"
            if ended is not None:
                yield line_of(ended)
                return
            if changed is self._changed:
                with suppress(TimeoutError):
                    async with asyncio.timeout(HEARTBEAT_SECONDS):
                        await changed.wait()
                    continue
                yield line_of(Heartbeat())

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
    """Return the line that a message is sent as."""
    return message.to_json() + b"\n"
