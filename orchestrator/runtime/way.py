"""How a Sandbox reaches its broker."""

import asyncio
from typing import Protocol

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class NotAdmittedError(OSError):
    """The broker does not let this Sandbox in; perhaps it will, when it is asked again."""


class Way(Protocol):
    """A way to a broker: by a gate that is shut behind this Sandbox, or over a network that nothing else crosses."""

    async def prove(self) -> None:
        """See that there is no other way out, before this one is used for the first time.

        Raises:
            NetworkOpenError: there is.
            OSError: the broker is not there.
        """

    async def watch(self) -> None:
        """See that no other way out opens while this one is used; never return.

        Raises:
            NetworkOpenError: one does.
        """

    async def dial(self) -> Connection:
        """Open a connection.

        Raises:
            OSError, asyncio.IncompleteReadError: nobody is there, or they left.
            NotAdmittedError: it is not for this Sandbox.
        """

    def close(self) -> None:
        """Let go of it."""
