"""A backend in memory: each Sandbox is a task of this process, which follows a script.

No container and no process starts, so a whole job takes milliseconds. Everything else is real: a script talks to the
broker over its socket and writes the spool, as the runtime does (see `scripted_sandbox`).
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Self

from orchestrator.aio import shielded
from orchestrator.backends.line_splitter import LineSplitter
from orchestrator.errors import BackendError, SandboxLostError
from orchestrator.sandbox.api import Exit, Reason, Sandbox, SandboxSpec
from orchestrator.testing.script_link import BrokerLeftError
from orchestrator.testing.scripted_sandbox import Guest, Script
from orchestrator.wire.line import LINE_BYTES
from orchestrator.wire.run import EventDetail, ExitCode

_DETAIL_CHARACTERS = 4096


async def _at_once(_: object) -> None:
    """Hold nothing up."""


class FakeSandbox:
    """A Sandbox that is a task."""

    def __init__(self, spec: SandboxSpec, script: Script, line_bytes: int, changed: Callable[[], None]) -> None:
        self.spec = spec
        self.failure: Exception | None = None
        """What a script raised that no script should."""
        self._changed = changed
        self._splitter = LineSplitter(line_bytes)
        self._lines: list[bytes] = []
        self._is_shut = False
        self._news = asyncio.Event()
        self._ended: Exit | SandboxLostError | None = None
        self._over = asyncio.Event()
        self._running: Callable[[SandboxSpec], Awaitable[None]] = _at_once
        self._guest = Guest(spec, self._write, self._shut)
        # It lives on where the orchestrator that launched it is gone, so no TaskGroup can hold it.
        self._task = asyncio.create_task(self._run(script))
        # Not in the task: one that is cancelled before its first turn never runs.
        self._task.add_done_callback(self._finish)

    @property
    def name(self) -> str:
        """The name it was launched under."""
        return self.spec.name

    @property
    def is_alive(self) -> bool:
        """Whether its script still runs."""
        return not self._over.is_set()

    async def lines(self) -> AsyncGenerator[bytes, None]:
        """Give the lines of its stdout from the first, to each reader."""
        given = 0
        while True:
            while given < len(self._lines):
                yield self._lines[given]
                given += 1
            if self._is_shut:
                return
            await self._news.wait()

    async def started(self) -> None:
        """Wait as long as `FakeBackend.running` does."""
        await self._running(self.spec)

    async def wait(self) -> Exit:
        """Wait for the end of its script.

        Raises:
            SandboxLostError: the test lost it.
        """
        await self._over.wait()
        if isinstance(self._ended, Exit):
            return self._ended
        raise SandboxLostError(str(self._ended))

    def end(self, ended: Exit | SandboxLostError) -> None:
        """End it from outside, at once; an end that came before stays."""
        if self._ended is None:
            self._ended = ended
            self._task.cancel()

    async def remove(self) -> None:
        """End it, and wait until nothing of it runs."""
        self.end(Exit(ExitCode.STOPPED, Reason.CANCELLED))
        await self._over.wait()

    def hold_up(self, running: Callable[[SandboxSpec], Awaitable[None]]) -> None:
        """Have `started` wait for `running`."""
        self._running = running

    def _write(self, chunk: bytes) -> None:
        self._lines += self._splitter.feed(chunk)
        self._notify()

    def _shut(self) -> None:
        if not self._is_shut:
            self._is_shut = True
            if (rest := self._splitter.rest()) is not None:
                self._lines.append(rest)
            self._notify()

    def _notify(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    async def _run(self, script: Script) -> None:
        try:
            ended = await self._end_of(script)
            self._ended = self._ended or ended
        except Exception as error:  # noqa: BLE001 - a mistake of the script, which the backend raises in the end
            self.failure = error

    def _finish(self, _: asyncio.Task[None]) -> None:
        # Without an end of its own it was cancelled with the event loop, or its script has a mistake.
        self._ended = self._ended or SandboxLostError(f"the Sandbox {self.name} is gone")
        self._guest.close()
        self._shut()
        self._over.set()
        self._changed()

    async def _end_of(self, script: Script) -> Exit:
        try:
            given = await script(self._guest)
        except BrokerLeftError as error:
            return Exit(ExitCode.BROKER_GONE, Reason.ERROR, str(error))
        except SandboxLostError as error:
            # Raised where the caller waits, not here.
            self._ended = error
            return Exit(None, Reason.LOST)
        if isinstance(given, Exit):
            return given
        detail = self._guest.stderr.strip()[-_DETAIL_CHARACTERS:]
        return Exit(given, Reason.ERROR, detail) if given else Exit(0, Reason.COMPLETED)


class FakeBackend:
    """Runs `script` in each Sandbox. Use it with `async with`: leaving ends what was left behind.

    Leaving also raises what a script raised, unless the exception states how its Sandbox ended.

    `starting` is awaited before a Sandbox starts, `running` before `Sandbox.started` returns, and `removing` before a
    Sandbox is removed, each with the SandboxSpec: one that waits holds the step up, one that raises fails it.
    `trouble` is what `check` raises. `launched` are the SandboxSpecs of all launches so far, failed ones too.
    """

    def __init__(self, script: Script, *, line_bytes: int = LINE_BYTES[EventDetail.DEFAULT]) -> None:
        self.script = script
        self.trouble: BackendError | None = None
        self.starting: Callable[[SandboxSpec], Awaitable[None]] = _at_once
        self.running: Callable[[SandboxSpec], Awaitable[None]] = _at_once
        self.removing: Callable[[SandboxSpec], Awaitable[None]] = _at_once
        self.launched: list[SandboxSpec] = []
        self.most_alive = 0
        self.line_bytes = line_bytes
        self._sandboxes: dict[str, FakeSandbox] = {}
        self._failures: list[Exception] = []
        self._changes = asyncio.Event()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for sandbox in tuple(self._sandboxes.values()):
            await shielded(self._removed(sandbox))
        if self._failures and error is None:
            raise self._failures[0]

    @property
    def alive(self) -> list[str]:
        """Names of the Sandboxes whose scripts run."""
        return [name for name, sandbox in self._sandboxes.items() if sandbox.is_alive]

    @property
    def left(self) -> list[str]:
        """Names of the Sandboxes that nothing has removed."""
        return list(self._sandboxes)

    def sandbox(self, name: str) -> FakeSandbox:
        """Give the Sandbox of this name, which must be there."""
        return self._sandboxes[name]

    def lose(self, name: str) -> None:
        """Have a Sandbox vanish, as when its node fails: it ends, and leaves no trace of the reason."""
        self._sandboxes.pop(name).end(SandboxLostError(f"the Sandbox {name} is gone"))
        self._change()

    async def until(self, is_so: Callable[[], bool]) -> None:
        """Wait until `is_so` returns true; it is called again whenever a Sandbox is launched, ends or is removed."""
        while not is_so():
            await self._changes.wait()

    def leave_behind(self, spec: SandboxSpec) -> FakeSandbox:
        """Start a Sandbox as an orchestrator did that was killed afterwards."""
        self.launched.append(spec)
        return self._start(spec)

    async def check(self) -> None:
        """Pass, unless the test gave a `trouble`.

        Raises:
            BackendError: it did.
        """
        if self.trouble is not None:
            raise self.trouble

    @asynccontextmanager
    async def launch(self, spec: SandboxSpec) -> AsyncIterator[Sandbox]:
        """Start a task.

        Raises:
            BackendError: one of that name is there, or `starting` raises it.
        """
        self.launched.append(spec)
        self._change()
        await self.starting(spec)
        if spec.name in self._sandboxes:
            message = f"a Sandbox named {spec.name} is there already; wait until it has ended"
            raise BackendError(message)
        sandbox = self._start(spec)
        try:
            yield sandbox
        finally:
            await shielded(self._removed(sandbox))

    @asynccontextmanager
    async def adopt(self, name: str) -> AsyncIterator[Sandbox]:
        """Take over a Sandbox that is there.

        Raises:
            SandboxLostError: no Sandbox has that name.
        """
        sandbox = self._sandboxes.get(name)
        if sandbox is None:
            message = f"no Sandbox {name} exists"
            raise SandboxLostError(message)
        try:
            yield sandbox
        finally:
            await shielded(self._removed(sandbox))

    async def prune(
        self, labels: Mapping[str, str], keep: Callable[[Mapping[str, str]], bool] = lambda _: False
    ) -> tuple[str, ...]:
        """Remove every Sandbox that carries all `labels`, except those for which `keep` returns True."""
        found = [
            sandbox
            for sandbox in self._sandboxes.values()
            if labels.items() <= sandbox.spec.labels.items() and not keep(sandbox.spec.labels)
        ]
        for sandbox in found:
            await shielded(self._removed(sandbox))
        return tuple(sorted(sandbox.name for sandbox in found))

    def _start(self, spec: SandboxSpec) -> FakeSandbox:
        sandbox = self._sandboxes[spec.name] = FakeSandbox(spec, self.script, self.line_bytes, self._change)
        sandbox.hold_up(self.running)
        self.most_alive = max(self.most_alive, len(self.alive))
        self._change()
        return sandbox

    async def _removed(self, sandbox: FakeSandbox) -> None:
        try:
            if self._sandboxes.get(sandbox.name) is sandbox:
                await self.removing(sandbox.spec)
        finally:
            await sandbox.remove()
            if sandbox.failure is not None:
                self._failures.append(sandbox.failure)
            if self._sandboxes.get(sandbox.name) is sandbox:
                del self._sandboxes[sandbox.name]
            self._change()

    def _change(self) -> None:
        self._changes.set()
        self._changes = asyncio.Event()
