"""A Sandbox that is gone once nobody needs it, whatever happens meanwhile."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

from orchestrator.backends.shielded import shielded
from orchestrator.errors import BackendError


class Removable(Protocol):
    """What can be removed: a container, or a Job."""

    async def remove(self) -> None:
        """Remove it, if it is there.

        Raises:
            BackendError: it may still be there.
        """


@asynccontextmanager
async def removed_after(sandbox: Removable) -> AsyncIterator[None]:
    """Remove a Sandbox when the block is left, to the end even if that is cancelled.

    Raises:
        BackendError: it may still be there; an error of the block comes first, and is told about it.
    """
    try:
        yield
    except BaseException as error:
        await remove_because(error, sandbox)
        raise
    await shielded(sandbox.remove())


async def remove_because(error: BaseException, sandbox: Removable) -> None:
    """Remove a Sandbox because of an error, which is told if that fails."""
    try:
        await shielded(sandbox.remove())
    except BackendError as left:
        error.add_note(str(left))
