"""Which door a backend's Sandboxes come in by."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from orchestrator.broker.door import Door
from orchestrator.broker.socket_door import SocketDoor
from orchestrator.sandbox import Backend, NetworkedBackend


@asynccontextmanager
async def opened_door(
    backend: Backend, key: bytes, directory: Path, note: Callable[[str], None]
) -> AsyncIterator[Door]:
    """Open the door for the Sandboxes of the job with this key, whose state directories are below `directory`.

    Raises:
        BackendUnavailableError: nobody could come in by it.
    """
    if not isinstance(backend, NetworkedBackend):
        yield SocketDoor()
        return
    from orchestrator.broker import tls_door  # noqa: PLC0415 - TLS takes long to import, and most jobs do without

    async with tls_door.open_door(backend.entrance, key, directory / "ports", note) as door:
        yield door
