"""Signals that stop a command: the first stops it cleanly, the second kills what still runs."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from orchestrator.errors import BackendError

if TYPE_CHECKING:
    from orchestrator.plan.job import Job
    from orchestrator.sandbox.api import Backend

_STOPPING = (signal.SIGINT, signal.SIGTERM)
_SIGNALLED = 128


@dataclass(slots=True)
class Stop:
    """Which signal came first, if any; `again` is set by the second."""

    signal_number: int | None = None
    again: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def ends_conversation(self) -> bool:
        """Whether a conversation ends too: one SIGINT stops its turn only, a second or another signal stops it all."""
        return self.again.is_set() or self.signal_number not in {None, signal.SIGINT}

    @property
    def exit_code(self) -> int:
        """The exit code that a shell expects of a command ended by this signal."""
        return _SIGNALLED + (self.signal_number or 0)


@contextmanager
def stop_on_signals(
    report: Callable[[str], None],
    stop: Stop | None = None,
    *,
    message: str = "stopping and removing Sandboxes",
) -> Iterator[Stop]:
    """Cancel the current task at the first signal, and report `message`; later ones set `stop.again`.

    Pass `stop` to read it after the task has ended. A closed terminal (SIGHUP) also stops the command, unless it was
    started to outlive the terminal.
    """
    closing = signal.getsignal(signal.SIGHUP) is signal.SIG_DFL
    signals = (*_STOPPING, signal.SIGHUP) if closing else _STOPPING
    terminals = [fd for fd in (1, 2) if os.isatty(fd)]
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    stop = stop or Stop()

    def handle(number: int) -> None:
        if number == signal.SIGHUP:
            _discard(terminals)
        if stop.signal_number is not None:
            stop.again.set()
            report("stopping immediately")
            return
        stop.signal_number = number
        report(message)
        if task is not None:
            task.cancel()

    for number in signals:
        loop.add_signal_handler(number, handle, number)
    try:
        yield stop
    finally:
        for number in signals:
            loop.remove_signal_handler(number)


def _discard(terminals: list[int]) -> None:
    """Discard further output: writing to a closed terminal fails, which would interrupt the cleanup."""
    null = os.open(os.devnull, os.O_WRONLY)
    for fd in terminals:
        os.dup2(null, fd)
    os.close(null)


@asynccontextmanager
async def kill_on_second_signal(stop: Stop, backend: "Backend", job: "Job") -> AsyncIterator[None]:
    """Kill all Sandboxes of `job` when a second signal comes while the first still stops them one by one."""
    from orchestrator.sandbox.naming import instance_labels, job_labels  # noqa: PLC0415 - a Pod does not need it

    async def kill() -> None:
        await stop.again.wait()
        # The task that stops the Sandboxes gets the same error, and reports it.
        with suppress(BackendError):
            await backend.prune(instance_labels(job.instance) | job_labels(job.id))

    # A TaskGroup would wrap the exceptions of the block in a group.
    killing = asyncio.create_task(kill())
    try:
        yield
    finally:
        killing.cancel()
        await asyncio.wait([killing])


def exit_on_sigterm() -> None:
    """End at SIGTERM like other programs; by default the first process of a container ignores it."""
    signal.signal(signal.SIGTERM, lambda *_: os._exit(_SIGNALLED + signal.SIGTERM))
