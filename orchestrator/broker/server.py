"""The broker of one job: a door for its Sandboxes, one model API behind all of them."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from orchestrator.broker.door import Door
from orchestrator.broker.egress import Access
from orchestrator.broker.file_lock import FileLock
from orchestrator.broker.gateway import Means
from orchestrator.broker.ledger import Ledger
from orchestrator.broker.proxy import Network
from orchestrator.broker.session import Common, Session
from orchestrator.broker.socket_door import SocketDoor
from orchestrator.disk.directory import Inode, inode_of
from orchestrator.providers import Provider
from orchestrator.sandbox import BrokerAddress, User
from orchestrator.wire.facts import Inodes


class Broker:
    """The way out of every Sandbox of one job. Use it with `async with`; leaving ends all that still runs.

    `open_provider` is entered once, on first use or by `prepare`. `report` hears every decision of the proxy. Sandboxes
    come in by `door`, else by a socket each, and change files of their workspace under the lock `files`,
    which is closed at the end.
    An error of the store, or a provider that cannot be opened, cancels the block and comes out of it.
    """

    def __init__(  # noqa: PLR0913 - what a job has one of each
        self,
        open_provider: Callable[[], AbstractAsyncContextManager[Provider]],
        ledger: Ledger,
        report: Callable[[Access], None],
        network: Network | None = None,
        door: Door | None = None,
        *,
        files: FileLock | None = None,
    ) -> None:
        self._open_provider = open_provider
        self._tasks = asyncio.TaskGroup()
        self._opened: asyncio.Future[Provider] | None = None
        self._over = asyncio.Event()
        self._door: Door = door or SocketDoor()
        self._common = Common(self._tasks, self._means, ledger, report, network or Network(), files or FileLock())

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
            failed = _single(group)
        finally:
            self._common.files.close()
        # Outside the handler, so that what failed is not said to come from the group.
        if failed is not None:
            raise failed

    async def prepare(self) -> None:
        """Open the model's API, if it is not open yet; await it beside the start of the first Sandbox.

        Raises:
            ConfigError: its setting is not usable.
            MissingEnvError: its key has no value.
        """
        await self._provider()

    @property
    def address(self) -> BrokerAddress | None:
        """Where Sandboxes reach it that come over a network."""
        return self._door.address

    @asynccontextmanager
    async def listen(
        self, name: str, state: Path, user: User, workspace: Inode | None = None
    ) -> AsyncIterator[Session]:
        """Let in the Sandbox of this name, with its state directory, before it is launched.

        It is given nothing where it turns out to have another `workspace`. Left, all that the Sandbox had here is over.

        Raises:
            BackendError: it could not come in.
        """
        inodes = None if workspace is None else Inodes(state=_inode(state), workspace=workspace)
        session = Session(self._common, partial(self._door.shut, state), inodes)
        async with self._door.admit(name, state, user, session):
            try:
                yield session
            finally:
                session.revoke()
                await session.ended()

    def _means(self, session: Session) -> Means:
        return Means(self._provider, self._common.ledger, session.start)

    async def _provider(self) -> Provider:
        if self._opened is None:
            self._opened = asyncio.get_running_loop().create_future()
            self._tasks.create_task(self._hold_provider(self._opened))
        return await asyncio.shield(self._opened)

    async def _hold_provider(self, opened: asyncio.Future[Provider]) -> None:
        """Enter and leave the provider in one task, as its cancel scopes demand."""
        try:
            async with self._open_provider() as provider:
                opened.set_result(provider)
                await self._over.wait()
        except Exception as error:  # whoever awaits the provider gets it
            if opened.done():
                raise
            opened.set_exception(error)
            # Nobody may be waiting any more; then nobody misses it.
            opened.exception()
        finally:
            opened.cancel()


def _inode(directory: Path) -> Inode:
    return inode_of(directory.stat())


def _single(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The one error inside, bare, if there is only one: callers expect an error and not a group of one."""
    found = {id(leaf): leaf for leaf in _leaves(group)}
    return next(iter(found.values())) if len(found) == 1 else group


def _leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in _leaves(inner)]
    return [error]
