"""Places where Sandboxes run; a file each, imported only when used."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from orchestrator.backends.ground import PROCESSES, Ground
from orchestrator.backends.kubernetes_setting import ClusterSetting
from orchestrator.errors import ConfigError
from orchestrator.sandbox import Backend
from orchestrator.wire.line import LINE_BYTES
from orchestrator.wire.run import EventDetail

BACKENDS = ("docker", "kubernetes", "process")


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


async def look(name: str, environ: Mapping[str, str], cluster: ClusterSetting | None = None) -> Ground:
    """Ask the place where Sandboxes of the backend `name` run what it can do; `cluster` as for `open_backend`.

    Raises:
        ConfigError: there is no such backend.
        BackendUnavailableError: its engine cannot be used.
    """
    require_known_backend(name)
    if name == "process":
        return PROCESSES
    if cluster is not None:
        from orchestrator.backends import kubernetes  # noqa: PLC0415 - the same

        async with kubernetes.connect(environ, cluster, image="") as in_cluster:
            return await in_cluster.ground()
    from orchestrator.backends import docker  # noqa: PLC0415 - each backend only where it is used

    async with docker.connect(environ, image="") as backend:
        return await backend.ground()


@asynccontextmanager
async def open_backend(  # noqa: PLR0913 - a place and how to speak of it
    name: str,
    environ: Mapping[str, str],
    *,
    image: str,
    events: EventDetail = EventDetail.DEFAULT,
    note: Callable[[str], None] = lambda _: None,
    announce: Callable[[str], None] = lambda _: None,
    cluster: ClusterSetting | None = None,
) -> AsyncIterator[Backend]:
    """Connect to the backend `name`; `environ` says where its engine is, `image` and `events` are a Job's.

    `note` takes remarks for a log, `announce` is told what makes Sandboxes wait. `cluster` says where in a cluster they
    run, which only `kubernetes` must know.

    Raises:
        ConfigError: there is no such backend, or it must know more.
        BackendUnavailableError: its engine cannot be used.
    """
    require_known_backend(name)
    line_bytes = LINE_BYTES[events]
    connected: AbstractAsyncContextManager[Backend]
    if name == "process":
        from orchestrator.backends import process  # noqa: PLC0415 - each backend only where it is used

        connected = process.connect(environ, line_bytes=line_bytes)
    elif name == "kubernetes":
        from orchestrator.backends import kubernetes  # noqa: PLC0415 - the same

        if cluster is None:
            message = "backend 'kubernetes' must know the namespace, the claim and the broker's address: give `cluster`"
            raise ConfigError(message)
        connected = kubernetes.connect(environ, cluster, image, line_bytes=line_bytes, note=note, announce=announce)
    else:
        from orchestrator.backends import docker  # noqa: PLC0415 - the same; its client is the heaviest import here

        connected = docker.connect(environ, image, line_bytes=line_bytes, note=note)
    async with connected as backend:
        yield backend
