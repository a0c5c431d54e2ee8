"""The backends: where Sandboxes run. Each is imported only when it is used."""

import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

from orchestrator.backends.cluster_settings import ClusterSetting
from orchestrator.backends.engine_info import EngineInfo
from orchestrator.backends.spec import BackendConnection, BackendSpec
from orchestrator.log import pass_to_callbacks
from orchestrator.plugins import Plugins
from orchestrator.sandbox.api import Backend
from orchestrator.wire.line import LINE_BYTES
from orchestrator.wire.run import EventDetail

BACKENDS = Plugins(
    BackendSpec,
    noun="backend",
    group="perstack_orch.backends",
    builtin={
        "docker": "orchestrator.backends.docker.backend:SPEC",
        "kubernetes": "orchestrator.backends.kubernetes.spec:SPEC",
        "process": "orchestrator.backends.process.backend:SPEC",
    },
)


def find_backend(name: str) -> BackendSpec:
    """Return the description of the backend `name`.

    Raises:
        ConfigError: the name is unknown; the message lists the known ones.
    """
    return BACKENDS.get(name)


def isolates(name: str) -> bool:
    """Whether Sandboxes of that backend are kept apart from the orchestrator's own files; unknown ones are."""
    spec = BACKENDS.find(name)
    return spec is None or spec.isolates


def is_cluster(name: str) -> bool:
    """Whether that backend's Sandboxes run in a cluster; those of an unknown one do not."""
    spec = BACKENDS.find(name)
    return spec is not None and spec.is_cluster


def mounts_host(name: str) -> bool:
    """Whether that backend's Sandboxes mount directories of this machine; those of an unknown one do not."""
    spec = BACKENDS.find(name)
    return spec is not None and spec.mounts_host


async def inspect_engine(name: str, environ: Mapping[str, str], cluster: ClusterSetting | None = None) -> EngineInfo:
    """Ask the engine of the backend `name` for its capabilities; `cluster` as for `open_backend`.

    Raises:
        ConfigError: no such backend exists.
        BackendUnavailableError: its engine cannot be used.
    """
    return await find_backend(name).engine_info(BackendConnection(environ, image="", cluster=cluster))


@asynccontextmanager
async def open_backend(  # noqa: PLR0913 - the backend, and arguments that go with the next release
    name: str,
    environ: Mapping[str, str],
    *,
    image: str,
    events: EventDetail = EventDetail.DEFAULT,
    cluster: ClusterSetting | None = None,
    note: Callable[[str], None] | None = None,
    announce: Callable[[str], None] | None = None,
) -> AsyncIterator[Backend]:
    """Connect to the backend `name`; `environ` locates its engine, `image` and `events` are the Job's.

    `cluster` is where in a cluster Sandboxes run; only `kubernetes` needs it. `note` and `announce` are called with log
    messages, and go with the next release.

    Raises:
        ConfigError: no such backend exists, or `cluster` is missing.
        BackendUnavailableError: its engine cannot be used.
    """
    connection = BackendConnection(environ, image, LINE_BYTES[events], cluster)
    with pass_to_callbacks(note, announce, _is_logged_here, function="open_backend"):
        async with find_backend(name).connect(connection) as backend:
            yield backend


def _is_logged_here(record: logging.LogRecord) -> bool:
    return record.name.startswith(f"{__name__}.")
