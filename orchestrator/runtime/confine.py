"""Processes started inside a domain.

A domain belongs to a thread and to what the thread starts, so each enclosure keeps one thread that has entered it and
does nothing but start processes: no code runs between fork and exec, and no launcher program costs its start-up.
The processes are that thread's children, which is how `reap` tells them from orphans.
"""

import asyncio
import os
import subprocess
import threading
from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from functools import partial
from signal import SIGKILL, Signals

from orchestrator.runtime import landlock
from orchestrator.runtime.domain import Domain

_LINE_BYTES = 64 * 1024
_Popen = subprocess.Popen[bytes]


class Child:
    """A process in a session of its own, with pipes to its standard streams; stdin is None where it has none.

    One at a terminal has no pipes: its streams are the terminal's.
    """

    def __init__(self, popen: _Popen, line_bytes: int | None) -> None:
        self.stdin: asyncio.StreamWriter | None = None
        self.stdout = asyncio.StreamReader(limit=line_bytes or _LINE_BYTES)
        self.stderr = asyncio.StreamReader()
        self._popen = popen
        self._ends_group = line_bytes is not None
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[int] = self._loop.create_future()
        self._transports: list[asyncio.BaseTransport] = []
        # A task of its own: whoever is cancelled while it goes on would leave pipes that nobody closes.
        self._attaching = self._loop.create_task(self._attach())

    @property
    def pid(self) -> int:
        """Its process id, also that of its group and session."""
        return self._popen.pid

    @property
    def ended(self) -> bool:
        """Whether it is over."""
        return self._ended.done()

    async def wait(self) -> int:
        """Wait for its end, not for that of its streams. Gives the exit code, or minus the signal that ended it."""
        return await asyncio.shield(self._ended)

    def signal(self, number: Signals) -> None:
        """Send a signal to it and its group, unless it has ended."""
        if not self._ended.done():
            self._signal_group(number)

    def close(self) -> None:
        """Let go of its streams."""
        for transport in self._transports:
            transport.close()

    async def attached(self) -> None:
        """Wait until its streams are connected.

        Raises:
            OSError: they cannot be.
        """
        await asyncio.shield(self._attaching)

    async def end(self) -> None:
        """End it and its group, and let go of its streams."""
        self.signal(SIGKILL)
        await asyncio.wait((self._attaching,))
        await self.wait()
        self.close()

    async def _attach(self) -> None:
        threading.Thread(target=self._watch, name=f"wait-{self.pid}", daemon=True).start()
        for reader, pipe in ((self.stdout, self._popen.stdout), (self.stderr, self._popen.stderr)):
            if pipe is None:
                continue
            transport, _ = await self._loop.connect_read_pipe(partial(asyncio.StreamReaderProtocol, reader), pipe)
            self._transports.append(transport)
        if self._popen.stdin is not None:
            flow = partial(asyncio.StreamReaderProtocol, asyncio.StreamReader())
            sink, protocol = await self._loop.connect_write_pipe(flow, self._popen.stdin)
            self._transports.append(sink)
            self.stdin = asyncio.StreamWriter(sink, protocol, None, self._loop)

    def _watch(self) -> None:
        with suppress(ChildProcessError):
            os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        with suppress(RuntimeError):  # The loop is gone, and so is everybody who would want to know.
            self._loop.call_soon_threadsafe(self._reap)

    def _reap(self) -> None:
        if self._ends_group:
            self._signal_group(SIGKILL)  # Before the leader is reaped, its id cannot name another group.
        self._ended.set_result(self._popen.wait())

    def _signal_group(self, number: Signals) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)


class Enclosure:
    """A domain that processes can be started in."""

    def __init__(self, starter: ThreadPoolExecutor) -> None:
        self._starter = starter
        self._children: list[Child] = []

    async def start(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: int,
        line_bytes: int | None = None,
        terminal: int | None = None,
    ) -> Child:
        """Start a process with exactly `env`, in the directory that the descriptor `cwd` is open on.

        With `line_bytes` it is spoken to: it has a stdin, a line of its stdout can be that long, and its end also ends
        what it started, short of what left its session. `terminal` is a descriptor for all three streams.

        Raises:
            OSError: the command is not there, or must not be run here.
            ValueError: the command or a variable holds a NUL.
        """
        spawn: partial[_Popen] = partial(
            subprocess.Popen,
            tuple(command),
            env=dict(env),
            # Opened when the child is forked: nobody can put another directory in its place meanwhile.
            cwd=f"/proc/self/fd/{cwd}",
            **_streams(line_bytes, terminal),
            bufsize=0,
            start_new_session=True,
        )
        started = asyncio.get_running_loop().run_in_executor(self._starter, spawn)
        try:
            popen = await asyncio.shield(started)
        except asyncio.CancelledError:
            started.add_done_callback(_discard)
            raise
        child = Child(popen, line_bytes)
        self._children = [known for known in self._children if not known.ended] + [child]
        await child.attached()
        return child

    async def end(self) -> None:
        """End every process started here, and its group."""
        for child in self._children:
            await child.end()


@asynccontextmanager
async def enclose(domain: Domain, version: int | None = None) -> AsyncIterator[Enclosure]:
    """Open an enclosure under Landlock ABI `version`, or the kernel's; leaving the block ends its processes.

    Where there is no Landlock it is not enforced.

    Raises:
        OSError: the kernel refused the domain.
    """
    supported = landlock.abi()
    usable = supported if version is None else min(version, supported)
    ruleset = landlock.build(domain, usable) if usable else None
    starter = ThreadPoolExecutor(1, "enclosure")
    enclosure = Enclosure(starter)
    try:
        await asyncio.get_running_loop().run_in_executor(starter, landlock.enter, ruleset)
        yield enclosure
    finally:
        await enclosure.end()
        starter.shutdown()
        if ruleset is not None:
            os.close(ruleset)


def _streams(line_bytes: int | None, terminal: int | None) -> dict[str, int]:
    output = subprocess.PIPE if terminal is None else terminal
    silent = subprocess.DEVNULL if line_bytes is None else subprocess.PIPE
    return {"stdin": silent if terminal is None else terminal, "stdout": output, "stderr": output}


def _discard(started: asyncio.Future[_Popen]) -> None:
    if not started.cancelled() and started.exception() is None:
        with started.result() as popen:
            popen.kill()
