"""Signals that ask a command to stop."""

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

_STOPPING = (signal.SIGINT, signal.SIGTERM)
_SIGNALLED = 128


@dataclass(slots=True)
class Stop:
    """Whether a signal came, and which; `again` is set once there was more than one."""

    number: int | None = None
    again: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def ends(self) -> bool:
        """Whether a conversation is to end too: SIGINT stops its turn, twice or another signal all of it."""
        return self.again.is_set() or self.number not in {None, signal.SIGINT}

    @property
    def exit_code(self) -> int:
        """What a shell expects of a command that ended by this signal."""
        return _SIGNALLED + (self.number or 0)


@contextmanager
def stoppable(
    say: Callable[[str], None],
    stop: Stop | None = None,
    *,
    doing: str = "stopping, and removing what runs",
) -> Iterator[Stop]:
    """Cancel the current task when a signal asks to stop; `stop.again` is set by further ones.

    What is then said is `doing`. `stop` is where it is noted, for whoever wants to know after the task is gone.
    A closed terminal asks to stop, too, unless the command was started to outlive it.
    """
    closing = signal.getsignal(signal.SIGHUP) is signal.SIG_DFL
    signals = (*_STOPPING, signal.SIGHUP) if closing else _STOPPING
    terminals = [fd for fd in (1, 2) if os.isatty(fd)]
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    stop = stop or Stop()

    def asked(number: int) -> None:
        if number == signal.SIGHUP:
            _silence(terminals)
        if stop.number is not None:
            stop.again.set()
            say("stopping at once")
            return
        stop.number = number
        say(doing)
        if task is not None:
            task.cancel()

    for number in signals:
        loop.add_signal_handler(number, asked, number)
    try:
        yield stop
    finally:
        for number in signals:
            loop.remove_signal_handler(number)


def _silence(terminals: list[int]) -> None:
    """Have nobody hear what a terminal that is gone would answer with an error, in the middle of clearing up."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for fd in terminals:
        os.dup2(nowhere, fd)
    os.close(nowhere)


def mortal() -> None:
    """End by SIGTERM like any program: the first one of a container is not ended by it unless it says so."""
    signal.signal(signal.SIGTERM, lambda *_: os._exit(_SIGNALLED + signal.SIGTERM))
