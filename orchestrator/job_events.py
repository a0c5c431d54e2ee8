"""The events of a job on their way to whoever iterates over them."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import replace

from orchestrator.clock import now
from orchestrator.outcome import Outcome
from orchestrator.receipt import Hop, Receipt
from orchestrator.store import Recorded
from orchestrator.wire.event import TerminalEvent

_WAITING = 1024
"""Events that wait for whoever iterates; then the collectors wait too."""


class JobEvents:
    """The events of a job in the order of their position, each stored before it is seen.

    `outcome` stands once iteration is over.
    """

    def __init__(self) -> None:
        # Without a bound: what is stored takes its place at once, or another's event overtakes it, or a cancelled
        # collector takes it along.
        self._queue: asyncio.Queue[Recorded | None] = asyncio.Queue()
        self._room = asyncio.Event()
        self._error: BaseException | None = None
        self.outcome: Outcome | None = None
        self.began = now()
        self._receipt = Receipt()
        self._hops: list[Hop] = []
        self._variables: set[str] = set()
        self.told = asyncio.Event()
        """Set with the first event: what nobody waits for may begin."""

    @property
    def receipt(self) -> Receipt:
        """What the job took so far."""
        return replace(self._receipt, hops=tuple(self._hops), variables=tuple(sorted(self._variables)))

    def granted(self, variables: Iterable[str]) -> None:
        """Take note of the names of variables that a Run is granted."""
        self._variables.update(variables)

    def __aiter__(self) -> AsyncIterator[Recorded]:
        return self

    async def __anext__(self) -> Recorded:
        """Give the next event.

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

    async def put(self, recorded: Recorded) -> None:
        """Add an event; then waits while many wait and nobody reads, but for a Run that is over."""
        if (hop := self._receipt.hop(recorded.event)) is not None:
            self._hops.append(hop)
        self._receipt = self._receipt.with_event(recorded.event)
        self.told.set()
        self._queue.put_nowait(recorded)
        if self._queue.qsize() >= _WAITING and not isinstance(recorded.event, TerminalEvent):
            self._room.clear()
            await self._room.wait()

    def rest(self) -> Iterator[Recorded]:
        """Give what is stored and was not taken yet, once the job is over or was left."""
        while not self._queue.empty():
            recorded = self._queue.get_nowait()
            if recorded is not None:
                yield recorded

    def close(self, outcome: Outcome | None, error: BaseException | None) -> None:
        """End the stream."""
        self.outcome, self._error = outcome, error
        self._queue.put_nowait(None)
