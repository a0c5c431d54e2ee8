"""Copies bytes between a skill and a host, both ways, within the skill's limits."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from orchestrator.sandbox.authority import EgressLimits
from orchestrator.sandbox.frame_stream import FrameStream
from orchestrator.units import amount

CHUNK = 64 * 1024


class LimitError(Exception):
    """A skill has reached a limit; the text completes a sentence about its connection."""


@dataclass(slots=True)
class Meter:
    """The network use of one skill of one Run: connections open and requested, bytes over all of them."""

    limits: EgressLimits
    open: int = 0
    requested: int = 0
    sent: int = 0
    received: int = 0

    def begin(self) -> None:
        """Count a requested connection.

        Raises:
            LimitError: it exceeds a limit.
        """
        self.requested += 1
        if self.requested > self.limits.connections_in_all:
            message = f"{self.limits.connections_in_all} connections were asked for, as many as a skill may in one Run"
            raise LimitError(message)
        if self.open >= self.limits.connections:
            message = f"{self.open} connections are open, as many as a skill may have at once; close some"
            raise LimitError(message)

    def send(self, size: int) -> None:
        """Count bytes on their way out.

        Raises:
            LimitError: they exceed the limit; none of them may be sent.
        """
        if self.sent + size > self.limits.sent:
            message = f"its skill has sent {amount(self.limits.sent)}, as much as a skill may in one Run"
            raise LimitError(message)
        self.sent += size

    def receive(self, size: int) -> None:
        """Count bytes on their way in.

        Raises:
            LimitError: they exceed the limit; none of them may be delivered.
        """
        if self.received + size > self.limits.received:
            message = f"its skill has received {amount(self.limits.received)}, as much as a skill may in one Run"
            raise LimitError(message)
        self.received += size


async def relay(inside: FrameStream, outside: FrameStream, meter: Meter) -> None:
    """Copy bytes both ways until both ends are done or one fails, and close them.

    Buffered bytes may leave slowly, within the same limits. If this raises, buffered bytes are dropped, so that
    closing the ends does not wait.

    Raises:
        LimitError: a limit was reached; the message names it.
    """
    limits, loop = meter.limits, asyncio.get_running_loop()
    try:
        async with asyncio.timeout(limits.connection_seconds) as whole, asyncio.timeout(limits.idle_seconds) as idle:

            def moved() -> None:
                # A byte may arrive at the very moment of the timeout; then it is too late.
                if not idle.expired():
                    idle.reschedule(loop.time() + limits.idle_seconds)

            await _relay_until_closed(inside, outside, meter, moved)
    except TimeoutError:
        if whole.expired():
            message = f"it was open for {limits.connection_seconds:g} s, as long as a connection may be"
            raise LimitError(message) from None
        if idle.expired():
            message = f"nothing moved for {limits.idle_seconds:g} s, as long as a connection may be idle"
            raise LimitError(message) from None
        raise


async def _relay_until_closed(
    inside: FrameStream, outside: FrameStream, meter: Meter, moved: Callable[[], None]
) -> None:
    try:
        await _both_ways(inside, outside, meter, moved)
        for end in (outside, inside):
            await end.close()
    except BaseException:
        for end in (outside, inside):
            end.drop()
        raise


async def _both_ways(inside: FrameStream, outside: FrameStream, meter: Meter, moved: Callable[[], None]) -> None:
    async def copy(source: FrameStream, target: FrameStream, count: Callable[[int], None]) -> None:
        while chunk := await source.reader.read(CHUNK):
            moved()
            count(len(chunk))
            target.writer.write(chunk)
            await target.writer.drain()
        target.end()

    reached: LimitError | None = None
    # Either end may reset the connection at any moment; that ends both directions.
    try:
        async with asyncio.TaskGroup() as ways:
            ways.create_task(copy(inside, outside, meter.send))
            ways.create_task(copy(outside, inside, meter.receive))
    except* LimitError as group:
        reached = next(error for error in group.exceptions if isinstance(error, LimitError))
    except* OSError:
        pass
    if reached is not None:
        raise reached
