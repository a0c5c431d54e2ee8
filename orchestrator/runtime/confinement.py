"""Start processes inside a Landlock domain.

A domain applies to a thread and everything the thread starts. So each spawner has one thread that has entered the
domain and only starts processes: no code runs between fork and exec, and no launcher program adds start-up time.
The processes are children of that thread, which is how `init_process` distinguishes them from orphans.
"""

import asyncio
import os
import subprocess
import threading
from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from signal import SIGKILL, Signals

from orchestrator.runtime import landlock
from orchestrator.runtime.domain import Domain, exec_domain, exec_home, skill_domain, skill_home
from orchestrator.runtime.tool_context import ToolContext
from orchestrator.runtime.tool_environment import base_environment, proxy_environment, without_protected
from orchestrator.wire.run import Grant
from orchestrator.wire.skill import BASE_SKILL

_LINE_BYTES = 64 * 1024
_Popen = subprocess.Popen[bytes]


class ConfinedProcess:
    """A process in its own session, with pipes for its standard streams; `stdin` is None if it has no input.

    A process on a terminal has no pipes; its streams are the terminal's.
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
        # A separate task: if the caller is cancelled meanwhile, the pipes are still attached and can be closed.
        self._attaching = self._loop.create_task(self._attach())

    @property
    def pid(self) -> int:
        """Its process id, which is also the id of its group and session."""
        return self._popen.pid

    @property
    def ended(self) -> bool:
        """Whether the process has ended."""
        return self._ended.done()

    async def wait(self) -> int:
        """Wait for the process, not its streams. Return its exit code, or the negative number of the fatal signal."""
        return await asyncio.shield(self._ended)

    def signal(self, number: Signals) -> None:
        """Send a signal to it and its group, unless it has ended."""
        if not self._ended.done():
            self._signal_group(number)

    def close(self) -> None:
        """Close its streams."""
        for transport in self._transports:
            transport.close()

    async def attached(self) -> None:
        """Wait until its streams are connected.

        Raises:
            OSError: connecting failed.
        """
        await asyncio.shield(self._attaching)

    async def end(self) -> None:
        """Kill the process and its group, and close its streams."""
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
        with suppress(RuntimeError):  # The loop is closed, so nothing waits for the result.
            self._loop.call_soon_threadsafe(self._reap)

    def _reap(self) -> None:
        if self._ends_group:
            self._signal_group(SIGKILL)  # Until the leader is reaped, its id cannot be reused for another group.
        self._ended.set_result(self._popen.wait())

    def _signal_group(self, number: Signals) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)


class ConfinedSpawner:
    """A domain in which processes can be started."""

    def __init__(self, starter: ThreadPoolExecutor) -> None:
        self._starter = starter
        self._children: list[ConfinedProcess] = []

    async def start(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: int,
        line_bytes: int | None = None,
        terminal: int | None = None,
    ) -> ConfinedProcess:
        """Start a process with exactly `env`, in the directory that the descriptor `cwd` refers to.

        `line_bytes` gives the process a stdin and sets the longest line of its stdout; when it ends, its group is
        killed, except processes that left its session. `terminal` is a descriptor for all three streams.

        Raises:
            OSError: the command does not exist, or may not be executed here.
            ValueError: the command or a variable contains a NUL character.
        """
        spawn: partial[_Popen] = partial(
            subprocess.Popen,
            tuple(command),
            env=dict(env),
            # Opened at the fork, so that no other directory can be put in its place.
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
        child = ConfinedProcess(popen, line_bytes)
        self._children = [known for known in self._children if not known.ended] + [child]
        await child.attached()
        return child

    async def end(self) -> None:
        """Kill every process started here, and its group."""
        for child in self._children:
            await child.end()


@asynccontextmanager
async def confine(domain: Domain, version: int | None = None) -> AsyncIterator[ConfinedSpawner]:
    """Open a spawner under Landlock ABI `version`, or the kernel's own; leaving the block kills its processes.

    Without Landlock in the kernel, the domain is not enforced.

    Raises:
        OSError: the kernel refused the domain.
    """
    supported = landlock.abi()
    usable = supported if version is None else min(version, supported)
    ruleset = landlock.build(domain, usable) if usable else None
    starter = ThreadPoolExecutor(1, "spawner")
    spawner = ConfinedSpawner(starter)
    try:
        await asyncio.get_running_loop().run_in_executor(starter, landlock.enter, ruleset)
        yield spawner
    finally:
        await spawner.end()
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


@dataclass(frozen=True, slots=True)
class ConfinedTool:
    """An open spawner, the environment of processes started in it, and their working directory."""

    spawner: ConfinedSpawner
    env: Mapping[str, str]
    directory: Path

    def open_directory(self) -> int:
        """Open the directory, for `ConfinedSpawner.start`; the caller closes it."""
        return os.open(self.directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


@asynccontextmanager
async def confine_exec(context: ToolContext, grant: Grant) -> AsyncIterator[ConfinedTool]:
    """Open the spawner of commands. Leaving the block ends them."""
    async with AsyncExitStack() as stack:
        home = exec_home(context)
        env, _ = await _environment(stack, home, context, grant)
        spawner = await stack.enter_async_context(confine(exec_domain(context)))
        yield ConfinedTool(spawner, env, context.workspace)


@asynccontextmanager
async def confine_skill(skill_name: str, context: ToolContext, grant: Grant) -> AsyncIterator[ConfinedTool]:
    """Open the spawner of a skill. Leaving the block ends it.

    A replaced base skill works in the workspace; it gets the grant that `exec` would have had.
    """
    async with AsyncExitStack() as stack:
        home = skill_home(context, skill_name)
        env, port = await _environment(stack, home, context, grant)
        domain: Domain = skill_domain(context, home, port)
        spawner = await stack.enter_async_context(confine(domain))
        yield ConfinedTool(spawner, env, context.workspace if skill_name == BASE_SKILL else home)


async def _environment(
    stack: AsyncExitStack, home: Path, context: ToolContext, grant: Grant
) -> tuple[dict[str, str], int | None]:
    """Create the home; return the variables, and the port of the proxy if there is one."""
    _make(home)
    env, port = base_environment(context.path, home), None
    if grant.proxy_credential is not None:
        port = await stack.enter_async_context(context.open_forwarder(grant.proxy_credential))
        env |= proxy_environment(port, grant.proxy_credential)
    return env | without_protected(grant.env), port


def _make(home: Path) -> None:
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
