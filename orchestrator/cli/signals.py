"""Signals that ask a command to stop."""

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

_STOPPING = (signal.SIGINT, signal.SIGTERM)
_SIGNALLED = 128


@dataclass(slots=True)
class Stop:
    """Whether a signal came, and which; `again` is whether it came more than once."""

    number: int | None = None
    again: bool = False

    @property
    def ends(self) -> bool:
        """Whether a conversation is to end too: SIGINT stops its turn, twice or another signal all of it."""
        return self.again or self.number not in {None, signal.SIGINT}

    @property
    def exit_code(self) -> int:
        """What a shell expects of a command that ended by this signal."""
        return _SIGNALLED + (self.number or 0)


@contextmanager
def stoppable(say: Callable[[str], None], stop: Stop | None = None) -> Iterator[Stop]:
    """Cancel the current task when a signal asks to stop; further signals find it stopping already.

    `stop` is where that is noted, for whoever wants to know after the task is gone.
    """
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    stop = stop or Stop()

    def asked(number: int) -> None:
        if stop.number is not None:
            stop.again = True
            say("still stopping")
            return
        stop.number = number
        say("stopping, and removing what runs")
        if task is not None:
            task.cancel()

    for number in _STOPPING:
        loop.add_signal_handler(number, asked, number)
    try:
        yield stop
    finally:
        for number in _STOPPING:
            loop.remove_signal_handler(number)
