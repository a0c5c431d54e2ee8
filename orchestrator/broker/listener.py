"""Where Sandboxes connect: each to its own socket, or all to one port where they authenticate."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Protocol

from orchestrator.broker.session import Session
from orchestrator.broker.unix_listener import UnixListener
from orchestrator.sandbox.api import Backend, BrokerAddress, NetworkedBackend, User


class Listener(Protocol):
    """A way for Sandboxes to connect to their sessions."""

    @property
    def address(self) -> BrokerAddress | None:
        """The address, for Sandboxes that connect over a network."""

    def seal(self, state: Path) -> None:
        """Allow no new connection through a Sandbox's state directory.

        Raises:
            OSError: the directory is gone.
        """

    def register(self, name: str, state: Path, user: User, session: Session) -> AbstractAsyncContextManager[None]:
        """Admit only the Sandbox of this name, with this state directory and user, to its session.

        Raises:
            BackendError: it could not connect here.
        """


@asynccontextmanager
async def open_listener(backend: Backend, key: bytes, directory: Path) -> AsyncIterator[Listener]:
    """Open the listener for the Sandboxes of the job with this key, whose state directories are below `directory`.

    Raises:
        BackendUnavailableError: no Sandbox could connect to it.
    """
    if not isinstance(backend, NetworkedBackend):
        yield UnixListener()
        return
    from orchestrator.broker import tls_listener  # noqa: PLC0415 - TLS takes long to import, and most jobs do without

    async with tls_listener.open_tls_listener(backend.ingress, key, directory / "ports") as listener:
        yield listener
