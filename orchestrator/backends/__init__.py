"""Places where Sandboxes run; a file each, imported only when used."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from orchestrator.backends.ground import PROCESSES, Ground
from orchestrator.errors import ConfigError
from orchestrator.sandbox import Backend
from orchestrator.wire.line import LINE_BYTES
from orchestrator.wire.run import EventDetail

BACKENDS = ("docker", "process")


def require_known_backend(name: str) -> None:
    """Check that there is a backend of that name.

    Raises:
        ConfigError: there is none; lists those there are.
    """
    if name not in BACKENDS:
        message = f"backend {name!r} is not known; use one of {', '.join(BACKENDS)}"
        raise ConfigError(message)


def isolates(name: str) -> bool:
    """Whether Sandboxes of that backend are kept apart from the orchestrator's own files."""
    return name != "process"


async def look(name: str, environ: Mapping[str, str]) -> Ground:
    """Ask the place where Sandboxes of the backend `name` run what it can do.

    Raises:
        ConfigError: there is no such backend.
        BackendUnavailableError: its engine cannot be used.
    """
    require_known_backend(name)
    if name == "process":
        return PROCESSES
    from orchestrator.backends import docker  # noqa: PLC0415 - each backend only where it is used

    async with docker.connect(environ, image="") as backend:
        return await backend.ground()


@asynccontextmanager
async def open_backend(
    name: str,
    environ: Mapping[str, str],
    *,
    image: str,
    events: EventDetail = EventDetail.DEFAULT,
    note: Callable[[str], None] = lambda _: None,
) -> AsyncIterator[Backend]:
    """Connect to the backend `name`; `environ` says where its engine is, `image` and `events` are a Job's.

    `note` takes remarks for a log.

    Raises:
        ConfigError: there is no such backend.
        BackendUnavailableError: its engine cannot be used.
    """
    require_known_backend(name)
    line_bytes = LINE_BYTES[events]
    connected: AbstractAsyncContextManager[Backend]
    if name == "process":
        from orchestrator.backends import process  # noqa: PLC0415 - each backend only where it is used

        connected = process.connect(environ, line_bytes=line_bytes)
    else:
        from orchestrator.backends import docker  # noqa: PLC0415 - the same; its client is the heaviest import here

        connected = docker.connect(environ, image, line_bytes=line_bytes, note=note)
    async with connected as backend:
        yield backend
