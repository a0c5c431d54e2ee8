"""How the other packages use a backend without knowing which one it is."""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from orchestrator.backends.cluster_settings import ClusterSetting
from orchestrator.backends.engine_info import EngineInfo
from orchestrator.images.context import shared_runtime_image
from orchestrator.sandbox.api import Backend, SandboxSpec
from orchestrator.wire.line import LINE_BYTES
from orchestrator.wire.run import EventDetail


@dataclass(frozen=True, slots=True)
class BackendConnection:
    """What a backend gets to connect to its engine.

    `environ` locates the engine; a backend reads no other environment. `image` is the runtime image, empty if no
    Sandbox will be launched. `line_bytes` bounds a line of stdout, newline included. `cluster` describes
    the cluster, None for other backends.
    """

    environ: Mapping[str, str]
    image: str
    line_bytes: int = LINE_BYTES[EventDetail.DEFAULT]
    cluster: ClusterSetting | None = None


@dataclass(frozen=True, slots=True)
class MountRow:
    """One path inside a Sandbox as a person reads it; `mode` is read-write, read-only, empty or memory."""

    path: str
    source: str
    mode: str


def no_mounts(_spec: SandboxSpec, _cluster: ClusterSetting | None) -> Iterable[MountRow]:
    """Describe a Sandbox that uses the host's own paths."""
    return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendSpec:
    """One backend.

    `connect` opens it, and `engine_info` asks its engine for its capabilities. `isolates` is whether Sandboxes are kept
    apart from the orchestrator's files, by the runtime image. `unit` names what one Sandbox is: container or process.
    `default_image` names the runtime image if no option does. `has_image` asks the engine whether it has the image of
    the connection, without pulling or building one; None if images are not the engine's.
    `mounts_host` is whether Sandboxes mount directories of this machine's file system. `is_cluster` is whether
    Sandboxes run in a cluster, and `cluster` of a BackendConnection is set. `describe_mounts` lists what a Sandbox
    mounts.
    """

    name: str
    connect: Callable[[BackendConnection], AbstractAsyncContextManager[Backend]]
    engine_info: Callable[[BackendConnection], Awaitable[EngineInfo]]
    isolates: bool = True
    unit: str = "container"
    default_image: Callable[[], str] = shared_runtime_image
    has_image: Callable[[BackendConnection], Awaitable[bool]] | None = None
    mounts_host: bool = True
    is_cluster: bool = False
    describe_mounts: Callable[[SandboxSpec, ClusterSetting | None], Iterable[MountRow]] = no_mounts
