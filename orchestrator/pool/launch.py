"""Starts a job's Sandboxes: launches them, or reattaches to them after their orchestrator was gone."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from orchestrator.aio import exit_in_thread
from orchestrator.broker.server import Broker
from orchestrator.broker.session import Session
from orchestrator.errors import BackendError, BackendUnavailableError, SandboxLostError
from orchestrator.events.spool import Spool
from orchestrator.plan.job import Job
from orchestrator.plan.run_plan import sandbox_spec
from orchestrator.pool.state_directories import existing_state_directory, state_directory
from orchestrator.sandbox.api import (
    Backend,
    Exit,
    LinkKind,
    Reason,
    Sandbox,
    SandboxSpec,
    StreamedBackend,
    StreamedSandbox,
)
from orchestrator.sandbox.naming import sandbox_name
from orchestrator.sandbox.socket_directory import has_socket_directory
from orchestrator.store import JobRecords
from orchestrator.wire.layout import SPOOL_NAME
from orchestrator.wire.line import EventLine
from orchestrator.wire.run import ExitCode
from orchestrator.workspace.mount import require_same

READY_SECONDS = 60
"""How long a Sandbox may take to connect to its broker after its start."""

_REMEDY = (
    "with Docker, use --link stream if the engine does not share unix sockets with this machine; in a cluster, Pods"
    " must reach the broker's address"
)


class SocketRefusedError(SandboxLostError):
    """A Sandbox did not reach its broker's socket; those launched from now on are linked by streams."""


@dataclass(frozen=True, slots=True)
class LaunchContext:
    """What is needed to start a job's Sandboxes.

    `directory` contains the state directories. `publish` stores and delivers an event.
    """

    job: Job
    backend: Backend
    broker: Broker
    records: JobRecords
    directory: Path
    publish: Callable[[EventLine], Awaitable[None]]
    clock: Callable[[], int]


@dataclass(frozen=True, slots=True)
class LiveSandbox:
    """A Sandbox of the pool, with its session and spool; after a reattach it may be gone.

    `gone` is set once it is removed.
    """

    ordinal: int
    sandbox: Sandbox
    session: Session
    spool: Spool
    gone: asyncio.Event


@dataclass(frozen=True, slots=True)
class GoneSandbox:
    """Replaces a Sandbox that is gone: only its spool may be left."""

    name: str
    why: str

    async def lines(self) -> AsyncGenerator[bytes, None]:
        """Yield nothing."""
        nothing: tuple[bytes, ...] = ()
        for line in nothing:
            yield line

    async def started(self) -> None:
        """Return at once."""

    async def wait(self) -> Exit:
        """Report that it is gone.

        Raises:
            SandboxLostError: always.
        """
        raise SandboxLostError(self.why)


@asynccontextmanager
async def launch(
    context: LaunchContext, ordinal: int, gone: asyncio.Event, started: Callable[[], None]
) -> AsyncIterator[LiveSandbox]:
    """Launch the Sandbox of this number; its state directory is made first, as the sign that it may exist.

    `started` is called once it runs, even if it has not connected to its broker yet.

    Raises:
        BackendError: it could not be started, or does not connect to its broker.
        ConfigError: its workspace was replaced.
    """
    workspace = context.job.workspace
    user = workspace.user
    made = state_directory(context.directory, ordinal, user, context.job.events)
    async with exit_in_thread(made) as (state, spool):
        require_same(workspace)
        wanted = sandbox_spec(context.job, ordinal, state, context.clock() // 1000, context.broker.address)
        spec = await with_link(wanted, context.backend)
        async with (
            context.broker.listen(spec.name, state, user, workspace.mounted_inode, spec.link) as session,
            context.backend.launch(spec) as sandbox,
            linked(sandbox, session, state),
        ):
            started()
            await ready(spec, session, sandbox, context.backend, may_change=wanted.link is LinkKind.AUTO)
            yield LiveSandbox(ordinal, sandbox, session, spool, gone)


@asynccontextmanager
async def reattach(
    context: LaunchContext, ordinal: int, gone: asyncio.Event, expect: Callable[[Session, Spool], None]
) -> AsyncIterator[LiveSandbox]:
    """Reattach to the Sandbox of this number, which may still work, have ended, or be gone except for its spool.

    `expect` prepares its new session before the Sandbox can connect; the spool shows what the Sandbox did so far.

    Raises:
        BackendError: its socket cannot be created again.
    """
    workspace, name = context.job.workspace, sandbox_name(context.job.id, ordinal, context.job.instance)
    async with (
        exit_in_thread(existing_state_directory(context.directory, ordinal, context.job.events)) as (state, spool),
        AsyncExitStack() as stack,
    ):
        # A Sandbox that is linked by a stream has no directory for a socket; neither have those on a network.
        is_stream = isinstance(context.backend, StreamedBackend) and not has_socket_directory(state)
        link = LinkKind.STREAM if is_stream else LinkKind.AUTO
        listening = context.broker.listen(name, state, workspace.user, workspace.mounted_inode, link)
        session = await stack.enter_async_context(listening)
        expect(session, spool)
        sandbox: Sandbox
        try:
            sandbox = await stack.enter_async_context(context.backend.adopt(name))
            await stack.enter_async_context(linked(sandbox, session, state))
        except SandboxLostError as error:
            sandbox = GoneSandbox(name, str(error))
        yield LiveSandbox(ordinal, sandbox, session, spool, gone)


async def with_link(spec: SandboxSpec, backend: Backend) -> SandboxSpec:
    """Return the Sandbox with the link that its backend chooses.

    Raises:
        BackendUnavailableError: its engine cannot be reached, or it cannot have the link that it must have.
    """
    if isinstance(backend, StreamedBackend):
        return replace(spec, link=await backend.choose_link(spec))
    if spec.link is LinkKind.STREAM:
        message = "--link stream works with Docker only: leave it out, or use --backend docker"
        raise BackendUnavailableError(message)
    return spec


@asynccontextmanager
async def linked(sandbox: Sandbox, session: Session, state: Path) -> AsyncIterator[None]:
    """Join a Sandbox and its session, if it does not connect by itself."""
    if isinstance(sandbox, StreamedSandbox):
        async with sandbox.open_link(session.accept, state / SPOOL_NAME):
            yield
    else:
        yield


async def exit_of(sandbox: Sandbox) -> Exit:
    """Wait for a Sandbox's end; one that went away counts as lost."""
    try:
        return await sandbox.wait()
    except SandboxLostError as error:
        return Exit(None, Reason.LOST, str(error))


async def ready(spec: SandboxSpec, session: Session, sandbox: Sandbox, backend: Backend, *, may_change: bool) -> None:
    """Wait until a Sandbox has connected to its broker; `may_change` is whether the backend chose its link.

    Raises:
        BackendError: it does not start, or has another workspace than it was launched for; the message has the reason.
        SandboxLostError: it was lost; another one may connect.
        SocketRefusedError: another one will have another link.
        BackendUnavailableError: it did not connect; the message names possible causes.
    """
    name = spec.name
    async with asyncio.TaskGroup() as group:
        attached = group.create_task(session.ready())
        gone = group.create_task(_outcome(exit_of(sandbox)))
        late = group.create_task(_outcome(_overdue(name, sandbox)))
        done, pending = await asyncio.wait((attached, gone, late), return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
    if attached in done:
        if session.violation is not None:
            message = f"Sandbox {name} was not given its Run: {session.violation}"
            raise BackendError(message)
        return
    ended = (gone if gone in done else late).result()
    if not isinstance(ended, Exit):
        raise ended
    if ended.reason in {Reason.LOST, Reason.EVICTED}:
        message = f"Sandbox {name} was lost before it reached its broker: {ended.detail}"
        raise SandboxLostError(message)
    had_socket = may_change and spec.link is LinkKind.SOCKET
    if ended.code == ExitCode.NO_BROKER and had_socket and isinstance(backend, StreamedBackend):
        await backend.avoid_sockets()
        message = f"Sandbox {name} did not reach its broker's socket; the next one is linked by a stream"
        raise SocketRefusedError(message)
    reason = f": {ended.last_line}" if ended.last_line else ""
    message = f"Sandbox {name} ended before it reached its broker (exit code {ended.code}{reason}); {_REMEDY}"
    if ended.code == ExitCode.NETWORK_OPEN:
        message = f"Sandbox {name} was not given its Run{reason}"
    raise BackendUnavailableError(message)


async def _outcome(work: Coroutine[None, None, Exit | BackendError]) -> Exit | BackendError:
    """Return an error as a value: raised in a group, it would arrive as a group."""
    try:
        return await work
    except BackendError as error:
        return error


async def _overdue(name: str, sandbox: Sandbox) -> BackendError:
    """Wait until a started Sandbox should have connected to its broker."""
    await sandbox.started()
    await asyncio.sleep(READY_SECONDS)
    return BackendUnavailableError(f"Sandbox {name} did not reach its broker within {READY_SECONDS} s; {_REMEDY}")
