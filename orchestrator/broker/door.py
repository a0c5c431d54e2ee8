"""How Sandboxes come in: each by a socket of its own, or all by one port where they are asked who they are."""

from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Protocol

from orchestrator.broker.session import Session
from orchestrator.sandbox import BrokerAddress, User


class Door(Protocol):
    """A way for Sandboxes to their sessions."""

    @property
    def address(self) -> BrokerAddress | None:
        """Where it is, for Sandboxes that come over a network."""

    def shut(self, state: Path) -> None:
        """Let nobody in any more by what is in a Sandbox's state directory who is not in already.

        Raises:
            OSError: it is gone.
        """

    def admit(self, name: str, state: Path, user: User, session: Session) -> AbstractAsyncContextManager[None]:
        """Let in the Sandbox of this name, with this state directory and user, and nobody else, to its session.

        Raises:
            BackendError: it could not come in here.
        """
