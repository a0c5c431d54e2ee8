"""How a job's Sandboxes come to life: launched, or found again after their orchestrator was gone."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from orchestrator.backends.naming import sandbox_name
from orchestrator.backends.shielded import left_apart
from orchestrator.broker.server import Broker
from orchestrator.broker.session import Session
from orchestrator.collect import Collected
from orchestrator.errors import BackendError, BackendUnavailableError, SandboxLostError
from orchestrator.mounting import require_same
from orchestrator.plan import Job, sandbox_spec
from orchestrator.sandbox import Backend, Exit, Reason, Sandbox
from orchestrator.spool import Spool
from orchestrator.state import found_directory, state_directory
from orchestrator.store import JobRecords
from orchestrator.wire.exit_code import ExitCode

READY_SECONDS = 60
"""How long a Sandbox may take from its start to its broker."""

_REMEDY = (
    "a Docker engine must run on this machine and share its file system and unix sockets, which remote engines and "
    "most desktop products do not; Pods must reach the broker's address"
)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a job's Sandboxes come to life.

    `directory` holds the state directories. `publish` stores an event and shows it, `note` takes remarks for a log.
    """

    job: Job
    backend: Backend
    broker: Broker
    records: JobRecords
    directory: Path
    publish: Callable[[Collected], Awaitable[None]]
    note: Callable[[str], None]
    clock: Callable[[], int]


@dataclass(frozen=True, slots=True)
class Opened:
    """A Sandbox that has reached its broker, or is expected back; `gone` is set once it is removed."""

    ordinal: int
    sandbox: Sandbox
    session: Session
    spool: Spool
    gone: asyncio.Event


@dataclass(frozen=True, slots=True)
class Absent:
    """In place of a Sandbox that is no longer there: only its spool may be left."""

    name: str
    why: str

    async def lines(self) -> AsyncGenerator[bytes, None]:
        """Give nothing."""
        nothing: tuple[bytes, ...] = ()
        for line in nothing:
            yield line

    async def started(self) -> None:
        """Return: what was launched runs."""

    async def wait(self) -> Exit:
        """Say that it is gone.

        Raises:
            SandboxLostError: always.
        """
        raise SandboxLostError(self.why)


@asynccontextmanager
async def launched(
    place: Place, ordinal: int, gone: asyncio.Event, started: Callable[[], None]
) -> AsyncIterator[Opened]:
    """Launch the Sandbox of this number; its state directory stands before it, and says that it may exist.

    `started` is called once it runs, though it may not have reached its broker yet.

    Raises:
        BackendError: it could not be started, or does not reach its broker.
        ConfigError: its workspace was replaced.
    """
    workspace = place.job.workspace
    user = workspace.user
    made = state_directory(place.directory, ordinal, user, place.job.events)
    async with left_apart(made) as (state, spool):
        require_same(workspace)
        spec = sandbox_spec(place.job, ordinal, state, place.clock() // 1000, place.broker.address)
        async with (
            place.broker.listen(spec.name, state, user, workspace.inode) as session,
            place.backend.launch(spec) as sandbox,
        ):
            started()
            await ready(spec.name, session, sandbox)
            yield Opened(ordinal, sandbox, session, spool, gone)


@asynccontextmanager
async def found(
    place: Place, ordinal: int, gone: asyncio.Event, expect: Callable[[Session, Spool], None]
) -> AsyncIterator[Opened]:
    """Take up the Sandbox of this number, which may still work, have ended, or be gone but for its spool.

    `expect` tells its new session what it was given before anybody can connect; its spool, what it made of that.

    Raises:
        BackendError: its socket cannot be made again.
    """
    workspace, name = place.job.workspace, sandbox_name(place.job.id, ordinal, place.job.instance)
    async with (
        left_apart(found_directory(place.directory, ordinal, place.job.events)) as (state, spool),
        place.broker.listen(name, state, workspace.user, workspace.inode) as session,
        AsyncExitStack() as stack,
    ):
        expect(session, spool)
        sandbox: Sandbox
        try:
            sandbox = await stack.enter_async_context(place.backend.adopt(name))
        except SandboxLostError as error:
            sandbox = Absent(name, str(error))
        yield Opened(ordinal, sandbox, session, spool, gone)


async def exit_of(sandbox: Sandbox) -> Exit:
    """Wait for a Sandbox's end; one that went away is lost."""
    try:
        return await sandbox.wait()
    except SandboxLostError as error:
        return Exit(None, Reason.LOST, str(error))


async def ready(name: str, session: Session, sandbox: Sandbox) -> None:
    """Wait until a Sandbox has reached its broker.

    Raises:
        BackendError: it does not come to run, or came with what it was not launched for; says why.
        BackendUnavailableError: it has not; says what may be wrong.
    """
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
    said = f": {ended.last_words}" if ended.last_words else ""
    message = f"Sandbox {name} ended before it reached its broker (exit code {ended.code}{said}); {_REMEDY}"
    if ended.code == ExitCode.NETWORK_OPEN:
        message = f"Sandbox {name} was not given its Run{said}"
    raise BackendUnavailableError(message)


async def _outcome(work: Coroutine[None, None, Exit | BackendError]) -> Exit | BackendError:
    """Give an error as a value: raised in a group, it would come out as a group."""
    try:
        return await work
    except BackendError as error:
        return error


async def _overdue(name: str, sandbox: Sandbox) -> BackendError:
    """Wait for as long as a Sandbox may take to its broker, once it runs."""
    await sandbox.started()
    await asyncio.sleep(READY_SECONDS)
    return BackendUnavailableError(f"Sandbox {name} did not reach its broker within {READY_SECONDS} s; {_REMEDY}")
