"""The broker of one job: the listener for its Sandboxes, and one model API for all of them."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from orchestrator.broker.gateway import GatewayContext
from orchestrator.broker.listener import Listener
from orchestrator.broker.run_records import RunRecords
from orchestrator.broker.session import Session, SessionContext
from orchestrator.broker.unix_listener import UnixListener
from orchestrator.broker.workspace_lock import WorkspaceLock
from orchestrator.disk.directory import Inode, inode_of
from orchestrator.egress.policy import EgressDecision
from orchestrator.egress.proxy import EgressNetwork
from orchestrator.providers import Provider
from orchestrator.sandbox.api import BrokerAddress, LinkKind, User
from orchestrator.wire.facts import Inodes


class Broker:
    """The only way out of every Sandbox of one job. Use it with `async with`; leaving ends all that still runs.

    `open_provider` is entered once, on first use or by `prepare`. `report` is called with every egress decision.
    Sandboxes connect through `listener`, else each through its own socket, and change files of their workspace under
    the lock `files`, which is closed at the end. An error of the store, or a provider that cannot be opened, cancels
    the block and is raised from it.
    """

    def __init__(  # noqa: PLR0913 - what exists once per job
        self,
        open_provider: Callable[[], AbstractAsyncContextManager[Provider]],
        run_records: RunRecords,
        report: Callable[[EgressDecision], None],
        network: EgressNetwork | None = None,
        listener: Listener | None = None,
        *,
        files: WorkspaceLock | None = None,
    ) -> None:
        self._open_provider = open_provider
        self._tasks = asyncio.TaskGroup()
        self._opened: asyncio.Future[Provider] | None = None
        self._over = asyncio.Event()
        self._listener: Listener = listener or UnixListener()
        self._common = SessionContext(
            self._tasks,
            self._gateway_context,
            run_records,
            report,
            network or EgressNetwork(),
            files or WorkspaceLock(),
        )

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        failed: BaseException | None = None
        try:
            await self._tasks.__aexit__(kind, error, trace)
        except BaseExceptionGroup as group:
            failed = _only_error(group)
        finally:
            self._common.files.close()
        # Outside the handler, so that the error does not have the group as its context.
        if failed is not None:
            raise failed

    async def prepare(self) -> None:
        """Open the model's API, if it is not open yet; run this while the first Sandbox starts.

        Raises:
            ConfigError: its setting is not usable.
            MissingEnvError: its key has no value.
        """
        await self._provider()

    @property
    def address(self) -> BrokerAddress | None:
        """The address for Sandboxes that connect over a network."""
        return self._listener.address

    @asynccontextmanager
    async def listen(
        self, name: str, state: Path, user: User, workspace: Inode | None = None, link: LinkKind = LinkKind.AUTO
    ) -> AsyncIterator[Session]:
        """Admit the Sandbox of this name, with its state directory, before it is launched.

        One whose `link` is a stream connects by `StreamedSandbox.open_link`, not through the listener. A Sandbox that
        has another `workspace` gets no work. When the block is left, all its calls and connections end.

        Raises:
            BackendError: it could not connect.
        """
        inodes = None if workspace is None else Inodes(state=_inode(state), workspace=workspace)
        registered: AbstractAsyncContextManager[None] = nullcontext()
        if link is LinkKind.STREAM:
            session = Session(self._common, inodes=inodes, is_private=True)
        else:
            session = Session(self._common, partial(self._listener.seal, state), inodes)
            registered = self._listener.register(name, state, user, session)
        async with registered:
            try:
                yield session
            finally:
                session.revoke()
                await session.ended()

    def _gateway_context(self, session: Session) -> GatewayContext:
        return GatewayContext(self._provider, self._common.run_records, session.start)

    async def _provider(self) -> Provider:
        if self._opened is None:
            self._opened = asyncio.get_running_loop().create_future()
            self._tasks.create_task(self._hold_provider(self._opened))
        return await asyncio.shield(self._opened)

    async def _hold_provider(self, opened: asyncio.Future[Provider]) -> None:
        """Enter and leave the provider in one task, as its cancel scopes require."""
        try:
            async with self._open_provider() as provider:
                opened.set_result(provider)
                await self._over.wait()
        except Exception as error:  # raised to every task that awaits the provider
            if opened.done():
                raise
            opened.set_exception(error)
            # If no task awaits it any longer, the error is not needed: mark it as retrieved.
            opened.exception()
        finally:
            opened.cancel()


def _inode(directory: Path) -> Inode:
    return inode_of(directory.stat())


def _only_error(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the group's only error without the group, if it has just one: callers expect a plain error."""
    found = {id(leaf): leaf for leaf in _leaf_errors(group)}
    return next(iter(found.values())) if len(found) == 1 else group


def _leaf_errors(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in _leaf_errors(inner)]
    return [error]
