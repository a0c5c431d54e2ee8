"""One Sandbox at the broker: its connections, its Run, and its calls."""

import asyncio
import hmac
import secrets
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from orchestrator.broker.assignment import Assignment, PriorState, SandboxTask, TerminalHandler, run_id
from orchestrator.broker.calls import Calls
from orchestrator.broker.checkpoint_validation import workspace_violation
from orchestrator.broker.gateway import Gateway, GatewayContext
from orchestrator.broker.run_records import RunRecords
from orchestrator.broker.workspace_lock import WorkspaceLock
from orchestrator.egress.policy import EgressDecision
from orchestrator.egress.proxy import EgressNetwork
from orchestrator.egress.tunnels import Tunnels
from orchestrator.errors import WireError
from orchestrator.sandbox.authority import Authority
from orchestrator.sandbox.frame_stream import FrameStream
from orchestrator.sandbox.keys import KEY_BYTES
from orchestrator.wire import frames
from orchestrator.wire.checkpoint import Checkpoint
from orchestrator.wire.facts import Facts, Inodes
from orchestrator.wire.generation import ToolDefinition
from orchestrator.wire.package import Install
from orchestrator.wire.run import Run
from orchestrator.wire.terminal import Shell

# Limits of the cost of a connection before it has shown the session key.
_OPENING_BYTES = 64 * 1024
_OPENING_SECONDS = 10
_CONNECTIONS = 256

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class SessionContext:
    """What the sessions of a job share: see Broker."""

    tasks: asyncio.TaskGroup
    gateway: Callable[["Session"], GatewayContext]
    run_records: RunRecords
    report: Callable[[EgressDecision], None]
    network: EgressNetwork
    files: WorkspaceLock


class Session:
    """One Sandbox: attached once, given one Run, revoked when that Run has ended.

    `came_in` is called whenever the Sandbox has connected, before it gets any work. A Sandbox whose inodes differ
    from `inodes`, those it was launched for, gets no work. `is_private` is whether only the Sandbox's runtime can open
    connections, and no program of an Expert.
    """

    def __init__(
        self,
        common: SessionContext,
        came_in: Callable[[], None] = lambda: None,
        inodes: Inodes | None = None,
        *,
        is_private: bool = False,
    ) -> None:
        self._common = common
        self._came_in = came_in
        self._inodes = inodes
        self._is_private = is_private
        self._streams: set[FrameStream] = set()
        self._running: set[asyncio.Task[Any]] = set()
        self._attached = asyncio.Event()
        self._main: FrameStream | None = None
        self._attend: TerminalHandler | None = None
        self._untouched: Callable[[], bool] = lambda: False
        self._revoked = False
        self._calls = Calls(common.run_records, common.files, common.tasks, self.start)
        self.facts: Facts | None = None
        """The Sandbox's report of its surroundings, sent before it had any program of an Expert to run."""

    @property
    def checkpoint(self) -> Checkpoint | None:
        """The latest checkpoint that was acknowledged."""
        return self._calls.checkpoint

    @property
    def tools(self) -> Mapping[str, tuple[ToolDefinition, ...]] | None:
        """The result of an inspection."""
        return self._calls.tools

    @property
    def violation(self) -> str | None:
        """The first rule that the container broke; from then on every request is refused."""
        return self._calls.violation

    @property
    def _assignment(self) -> Assignment | None:
        return self._calls.assignment

    @property
    def generations(self) -> int:
        """Model calls of this Run, as counted on the host."""
        return self._assignment.gateway.generations if self._assignment else 0

    async def ready(self) -> None:
        """Wait until the Sandbox has attached. If it ends before, this waits forever: also watch its exit.

        A Sandbox that arrived with a `violation` gets no work.
        """
        await self._attached.wait()

    async def assign(
        self, run: Run, authority: Authority, past: PriorState | None = None, key: str | None = None
    ) -> None:
        """Give the Sandbox its Run; it must be ready, and have none. It presents `key` from then on.

        Raises:
            WireError: the Run does not fit a frame.
        """
        await self._send(self._keep(run, authority, frames.Assigned(run=run, session_key=key or _fresh_key()), past))

    def expect(self, run: Run, authority: Authority, past: PriorState, key: str, untouched: Callable[[], bool]) -> None:
        """Record that an orchestrator that is gone gave the Sandbox this Run.

        The Sandbox reattaches with its key. One that had not received the Run yet attaches again and gets it then,
        while the Run is `untouched`: later a process of its Expert, which has no key, could attach first.
        """
        self._untouched = untouched
        self._keep(run, authority, frames.Assigned(run=run, session_key=key), past)

    async def assign_inspection(self, run: Run, authority: Authority) -> None:
        """Make it start the skills of a Run and report their tools in `tools`; it does nothing else.

        Raises:
            WireError: the Run does not fit a frame.
        """
        await self._send(self._keep(run, authority, frames.Assigned(inspection=run, session_key=_fresh_key())))

    async def assign_install(self, install: Install, authority: Authority) -> None:
        """Make it install packages; it may open connections and make no call."""
        await self._send(self._keep(install, authority, frames.Assigned(install=install, session_key=_fresh_key())))

    async def assign_shell(self, shell: Shell, authority: Authority, attend: TerminalHandler) -> None:
        """Make it start a program for the user, whose terminal `attend` serves; it calls no model.

        Raises:
            WireError: the Run does not fit a frame.
        """
        self._attend = attend
        await self._send(self._keep(shell, authority, frames.Assigned(shell=shell, session_key=_fresh_key())))

    def _keep(
        self, work: SandboxTask, authority: Authority, frame: frames.Assigned, past: PriorState | None = None
    ) -> frames.Assigned:
        if self._assignment is not None:
            message = "a Sandbox is given one Run"
            raise RuntimeError(message)
        if past is None:
            past = PriorState(work.checkpoint.usage) if isinstance(work, Run) else PriorState()
        gateway = Gateway(self._common.gateway(self), run_id(work), authority, past.recorded_usage)
        tunnels = Tunnels(run_id(work), authority, self._common.network, self._common.report)
        self._calls.assignment = Assignment(work, authority, frame, gateway, tunnels, past.usage)
        self._calls.checkpoint = past.checkpoint
        return frame

    async def _send(self, frame: frames.Assigned) -> None:
        if self._main is None:
            message = "a Sandbox is given its Run once it is ready"
            raise RuntimeError(message)
        await self._main.send(frame)

    def revoke(self) -> None:
        """End all that the Sandbox has here: its connections, its calls, and its right to open more."""
        self._revoked = True
        for task in self._running:
            task.cancel()
        for stream in self._streams:
            stream.abort()

    async def ended(self) -> None:
        """Wait, after `revoke`, until all tasks of this session have ended."""
        while self._running:
            await asyncio.wait(self._running)
        await self._calls.kept()

    def expel(self, violation: str) -> None:
        """Cut off a Sandbox that has another workspace or an open network, and admit it no more."""
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
        stream = FrameStream(reader, writer)
        if self._revoked or len(self._streams) >= _CONNECTIONS:
            stream.abort()
            return
        self._streams.add(stream)
        serving = self._serve(stream)
        try:
            _ = self.start(serving)
        except RuntimeError:
            # The broker is closing and takes no more tasks, but its socket is still open.
            serving.close()
            self._streams.discard(stream)
            stream.abort()

    async def _serve(self, stream: FrameStream) -> None:
        try:
            async with asyncio.timeout(_OPENING_SECONDS):
                opening = await frames.read_frame(stream.reader, frames.OPENING, _OPENING_BYTES)
            refused = self._refusal(opening)
            if refused is not None:
                is_first = isinstance(opening, frames.Attach)
                await stream.send(frames.Assigned(refused=refused) if is_first else frames.TunnelReply(refused=refused))
            elif isinstance(opening, frames.Tunnel) and self._assignment is not None:
                await self._assignment.tunnels.carry(stream, opening)
            elif isinstance(opening, frames.Terminal):
                await self._serve_shell(stream)
            elif not isinstance(opening, frames.Tunnel):
                await self._link(stream, opening)
        except (WireError, OSError, asyncio.IncompleteReadError):
            # This ends only that connection: a legitimate Sandbox reattaches with its key.
            pass
        finally:
            self._streams.discard(stream)
            await stream.close()

    def _refusal(self, opening: frames.Opening) -> str | None:
        if isinstance(opening, frames.Attach):
            # A Sandbox without work may attach again: its connection broke, and no program of an Expert runs yet.
            if self._assignment is None:
                return None
            # It never got its Run if the link broke on the way. Only its runtime can open a connection of such a link.
            if self._is_private and not self._calls.has_begun:
                return None
            if self._main is not None:
                return "this Sandbox is attached already"
            return None if self._untouched() else "this Sandbox has begun its Run, and comes back with the key to it"
        key = self._assignment.frame.session_key if self._assignment else None
        if key is None or not hmac.compare_digest(key.encode(), opening.session_key.encode()):
            return "the session key is not right"
        return None

    async def _serve_shell(self, stream: FrameStream) -> None:
        if self._attend is None:
            await stream.send(frames.TunnelReply(refused="this Sandbox was given no shell to start"))
            return
        await stream.send(frames.TunnelReply())
        await self._attend(stream)

    async def _link(self, stream: FrameStream, opening: frames.Attach | frames.Reattach) -> None:
        self._came_in()
        if isinstance(opening, frames.Attach):
            self.facts = opening.facts
            if (trouble := workspace_violation(opening.inodes, self._inodes)) is not None:
                self._attached.set()
                self.expel(trouble)
                return
        before, self._main = self._main, stream
        self._attached.set()
        if before:
            before.abort()
        if isinstance(opening, frames.Reattach):
            await stream.send(frames.TunnelReply())
        elif self._assignment is not None:
            await stream.send(self._assignment.frame)
        await self._calls.serve(stream)


def _fresh_key() -> str:
    return secrets.token_hex(KEY_BYTES)
