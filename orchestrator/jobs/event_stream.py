"""The events of a job on their way to the code that iterates over them."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import replace

from orchestrator.jobs.outcome import Outcome
from orchestrator.jobs.receipt import Hop, Receipt
from orchestrator.units import now
from orchestrator.wire.event import TerminalEvent
from orchestrator.wire.line import EventLine

_WAITING = 1024
"""Events that wait for the consumer; with more, the collectors wait too."""


class JobEvents:
    """The events of a job in the order of their position, each stored before it is delivered.

    `outcome` is set once iteration is over.
    """

    def __init__(self) -> None:
        # Unbounded: a stored event must enter at once, otherwise another would overtake it, or the cancellation of a
        # collector would lose it.
        self._queue: asyncio.Queue[EventLine | None] = asyncio.Queue()
        self._room = asyncio.Event()
        self._error: BaseException | None = None
        self.outcome: Outcome | None = None
        self.began = now()
        self._receipt = Receipt()
        self._hops: list[Hop] = []
        self._variables: set[str] = set()
        self.has_begun = asyncio.Event()
        """Set with the first event: background work without a waiting caller may begin."""

    @property
    def receipt(self) -> Receipt:
        """What the job used so far."""
        return replace(self._receipt, hops=tuple(self._hops), variables=tuple(sorted(self._variables)))

    def granted(self, variables: Iterable[str]) -> None:
        """Record the names of variables that a Run is granted."""
        self._variables.update(variables)

    def __aiter__(self) -> AsyncIterator[EventLine]:
        return self

    async def __anext__(self) -> EventLine:
        """Return the next event.

        Raises:
            OrchestratorError: the platform failed.
        """
        recorded = await self._queue.get()
        if self._queue.qsize() < _WAITING:
            self._room.set()
        if recorded is not None:
            return recorded
        self._queue.put_nowait(None)
        if self._error is not None:
            raise self._error
        raise StopAsyncIteration

    async def put(self, recorded: EventLine) -> None:
        """Add an event; wait if many are unread, except after a terminal event."""
        if (hop := self._receipt.hop(recorded.event)) is not None:
            self._hops.append(hop)
        self._receipt = self._receipt.with_event(recorded.event)
        self.has_begun.set()
        self._queue.put_nowait(recorded)
        if self._queue.qsize() >= _WAITING and not isinstance(recorded.event, TerminalEvent):
            self._room.clear()
            await self._room.wait()

    def rest(self) -> Iterator[EventLine]:
        """Yield the stored events that were not consumed, once the job is over or was left."""
        while not self._queue.empty():
            recorded = self._queue.get_nowait()
            if recorded is not None:
                yield recorded

    def close(self, outcome: Outcome | None, error: BaseException | None) -> None:
        """End the stream."""
        self.outcome, self._error = outcome, error
        self._queue.put_nowait(None)
