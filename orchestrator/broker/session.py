"""One Sandbox at the broker: its connections, its Run, and what it may ask for."""

import asyncio
import hmac
import secrets
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from orchestrator.broker.assignment import Assignment, Attend, Past, Work, run_id
from orchestrator.broker.authority import Authority
from orchestrator.broker.calls import Calls
from orchestrator.broker.claims import misplaced
from orchestrator.broker.egress import Access
from orchestrator.broker.file_lock import FileLock
from orchestrator.broker.gateway import Gateway, Means
from orchestrator.broker.ledger import Ledger
from orchestrator.broker.proxy import Network
from orchestrator.broker.relay import Traffic
from orchestrator.broker.stream import Stream
from orchestrator.broker.tunnels import Tunnels
from orchestrator.errors import WireError
from orchestrator.keys import KEY_BYTES
from orchestrator.wire import link
from orchestrator.wire.checkpoint import Checkpoint
from orchestrator.wire.facts import Facts, Inodes
from orchestrator.wire.generation import ToolDefinition
from orchestrator.wire.install import Install
from orchestrator.wire.run import Run
from orchestrator.wire.shell import Shell
from orchestrator.wire.usage import Usage

# Before a connection has shown the session key, it may cost the host no more than this.
_OPENING_BYTES = 64 * 1024
_OPENING_SECONDS = 10
_CONNECTIONS = 256

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Common:
    """What the sessions of a job share: see Broker."""

    tasks: asyncio.TaskGroup
    means: Callable[["Session"], Means]
    ledger: Ledger
    report: Callable[[Access], None]
    network: Network
    files: FileLock


class Session:
    """One Sandbox: attached once, given one Run, revoked when that Run has ended.

    `came_in` is called whenever the Sandbox has come, before it is given anything to do. One that has others than the
    `inodes` which it was launched for is given nothing.
    """

    def __init__(
        self, common: Common, came_in: Callable[[], None] = lambda: None, inodes: Inodes | None = None
    ) -> None:
        self._common = common
        self._came_in = came_in
        self._inodes = inodes
        self._streams: set[Stream] = set()
        self._running: set[asyncio.Task[Any]] = set()
        self._attached = asyncio.Event()
        self._main: Stream | None = None
        self._attend: Attend | None = None
        self._untouched: Callable[[], bool] = lambda: False
        self._revoked = False
        self._calls = Calls(common.ledger, common.files, common.tasks, self.start)
        self.facts: Facts | None = None
        """What the Sandbox found around itself, told before it had anything of an Expert's to run."""

    @property
    def checkpoint(self) -> Checkpoint | None:
        """The latest checkpoint that was acknowledged."""
        return self._calls.checkpoint

    @property
    def tools(self) -> Mapping[str, tuple[ToolDefinition, ...]] | None:
        """What an inspection found."""
        return self._calls.tools

    @property
    def violation(self) -> str | None:
        """The first rule that the container broke; from then on it is refused everything."""
        return self._calls.violation

    @property
    def _assignment(self) -> Assignment | None:
        return self._calls.given

    @property
    def usage(self) -> Usage:
        """Tokens of this Run, as counted on the host."""
        return self._assignment.gateway.usage if self._assignment else Usage()

    @property
    def generations(self) -> int:
        """Model calls of this Run, as counted on the host."""
        return self._assignment.gateway.generations if self._assignment else 0

    @property
    def traffic(self) -> Traffic:
        """Bytes that its skills sent to hosts and received from them."""
        return self._assignment.tunnels.traffic if self._assignment else Traffic()

    async def ready(self) -> None:
        """Wait until the Sandbox has attached. If it ends before, this waits for ever: watch its exit beside it.

        One that came with a `violation` is given nothing.
        """
        await self._attached.wait()

    async def assign(self, run: Run, authority: Authority, past: Past | None = None, key: str | None = None) -> None:
        """Give the Sandbox its Run; it must be ready, and have none. `key` is what it presents from then on.

        Raises:
            WireError: the Run does not fit a frame.
        """
        await self._send(self._keep(run, authority, link.Assigned(run=run, session_key=key or _fresh_key()), past))

    def expect(self, run: Run, authority: Authority, past: Past, key: str, untouched: Callable[[], bool]) -> None:
        """Say that the Sandbox was given this Run before, by an orchestrator that is gone.

        It comes back with its key. One that had not got the Run yet attaches once more and gets it then, for as long as
        the Run is `untouched`: later a process that its Expert started could be at the door first, and has no key.
        """
        self._untouched = untouched
        self._keep(run, authority, link.Assigned(run=run, session_key=key), past)

    async def assign_inspection(self, run: Run, authority: Authority) -> None:
        """Have it start the skills of a Run and tell their tools, which are then in `tools`; it does nothing else.

        Raises:
            WireError: the Run does not fit a frame.
        """
        await self._send(self._keep(run, authority, link.Assigned(inspection=run, session_key=_fresh_key())))

    async def assign_install(self, install: Install, authority: Authority) -> None:
        """Have it install packages; it may open connections and make no call."""
        await self._send(self._keep(install, authority, link.Assigned(install=install, session_key=_fresh_key())))

    async def assign_shell(self, shell: Shell, authority: Authority, attend: Attend) -> None:
        """Have it start a program for a person, whose terminal `attend` serves; it calls no model.

        Raises:
            WireError: the Run does not fit a frame.
        """
        self._attend = attend
        await self._send(self._keep(shell, authority, link.Assigned(shell=shell, session_key=_fresh_key())))

    def _keep(self, work: Work, authority: Authority, frame: link.Assigned, past: Past | None = None) -> link.Assigned:
        if self._assignment is not None:
            message = "a Sandbox is given one Run"
            raise RuntimeError(message)
        if past is None:
            past = Past(work.checkpoint.usage) if isinstance(work, Run) else Past()
        gateway = Gateway(self._common.means(self), run_id(work), authority, past.answered)
        tunnels = Tunnels(run_id(work), authority, self._common.network, self._common.report)
        self._calls.given = Assignment(work, authority, frame, gateway, tunnels, past.usage)
        self._calls.checkpoint = past.checkpoint
        return frame

    async def _send(self, frame: link.Assigned) -> None:
        if self._main is None:
            message = "a Sandbox is given its Run once it is ready"
            raise RuntimeError(message)
        await self._main.send(frame)

    def revoke(self) -> None:
        """End all that the Sandbox has here: its connections, its calls, and its right to open others."""
        self._revoked = True
        for task in self._running:
            task.cancel()
        for stream in self._streams:
            stream.abort()

    async def ended(self) -> None:
        """Wait, after `revoke`, until nothing of this session is left."""
        while self._running:
            await asyncio.wait(self._running)
        await self._calls.kept()

    def expel(self, violation: str) -> None:
        """Cut a Sandbox off that was found where it must not be, and let it in no more."""
        self._calls.violation = self.violation or violation
        self.revoke()

    def start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run `work` until it is done or the session is revoked."""
        task = self._common.tasks.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take a new connection."""
        stream = Stream(reader, writer)
        if self._revoked or len(self._streams) >= _CONNECTIONS:
            stream.abort()
            return
        self._streams.add(stream)
        serving = self._serve(stream)
        try:
            _ = self.start(serving)
        except RuntimeError:
            # The broker goes down and takes no tasks any more, but its socket is still open.
            serving.close()
            self._streams.discard(stream)
            stream.abort()

    async def _serve(self, stream: Stream) -> None:
        try:
            async with asyncio.timeout(_OPENING_SECONDS):
                opening = await link.read_frame(stream.reader, link.OPENING, _OPENING_BYTES)
            refused = self._refusal(opening)
            if refused is not None:
                await stream.send(link.Opened(refused=refused))
            elif isinstance(opening, link.Tunnel) and self._assignment is not None:
                await self._assignment.tunnels.carry(stream, opening)
            elif isinstance(opening, link.Terminal):
                await self._show(stream)
            elif not isinstance(opening, link.Tunnel):
                await self._link(stream, opening)
        except (WireError, OSError, asyncio.IncompleteReadError):
            # That connection's end and nothing else's: a Sandbox that is in earnest comes back with its key.
            pass
        finally:
            self._streams.discard(stream)
            await stream.close()

    def _refusal(self, opening: link.Opening) -> str | None:
        if isinstance(opening, link.Attach):
            # One that was given nothing yet may come again: its connection broke, and nothing of an Expert runs yet.
            if self._assignment is None:
                return None
            if self._main is not None:
                return "this Sandbox is attached already"
            return None if self._untouched() else "this Sandbox has begun its Run, and comes back with the key to it"
        key = self._assignment.frame.session_key if self._assignment else None
        if key is None or not hmac.compare_digest(key.encode(), opening.session_key.encode()):
            return "the session key is not right"
        return None

    async def _show(self, stream: Stream) -> None:
        if self._attend is None:
            await stream.send(link.Opened(refused="this Sandbox was given no shell to start"))
            return
        await stream.send(link.Opened())
        await self._attend(stream)

    async def _link(self, stream: Stream, opening: link.Attach | link.Reattach) -> None:
        self._came_in()
        if isinstance(opening, link.Attach):
            self.facts = opening.facts
            if (trouble := misplaced(opening.inodes, self._inodes)) is not None:
                self._attached.set()
                self.expel(trouble)
                return
        before, self._main = self._main, stream
        self._attached.set()
        if before:
            before.abort()
        if isinstance(opening, link.Reattach):
            await stream.send(link.Opened())
        elif self._assignment is not None:
            await stream.send(self._assignment.frame)
        await self._calls.serve(stream)


def _fresh_key() -> str:
    return secrets.token_hex(KEY_BYTES)
