"""The description of the backend `kubernetes`; imports little, because commands that only query a cluster import it."""

from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager

from orchestrator.backends.cluster_settings import ClusterSetting
from orchestrator.backends.engine_info import EngineInfo
from orchestrator.backends.kubernetes.manifest import mounted
from orchestrator.backends.spec import BackendConnection, BackendSpec, MountRow
from orchestrator.errors import ConfigError
from orchestrator.sandbox.api import Backend, SandboxSpec


def _connect(connection: BackendConnection) -> AbstractAsyncContextManager[Backend]:
    from orchestrator.backends.kubernetes import backend as kubernetes  # noqa: PLC0415 - the client is not needed to describe it

    return kubernetes.connect(
        connection.environ,
        _cluster(connection.cluster),
        connection.image,
        line_bytes=connection.line_bytes,
    )


async def _engine_info(connection: BackendConnection) -> EngineInfo:
    from orchestrator.backends.kubernetes import backend as kubernetes  # noqa: PLC0415 - the same

    async with kubernetes.connect(connection.environ, _cluster(connection.cluster), connection.image) as backend:
        return await backend.engine_info()


def _cluster(cluster: ClusterSetting | None) -> ClusterSetting:
    if cluster is None:
        message = (
            "backend 'kubernetes' needs the namespace, the claim and the broker's address: "
            "pass `cluster=ClusterSetting(…)`"
        )
        raise ConfigError(message)
    return cluster


def _describe_mounts(spec: SandboxSpec, cluster: ClusterSetting | None) -> Iterator[MountRow]:
    for path, source, mode in mounted(spec, _cluster(cluster)):
        yield MountRow(path, source, mode)


SPEC = BackendSpec(
    name="kubernetes",
    connect=_connect,
    engine_info=_engine_info,
    mounts_host=False,
    is_cluster=True,
    describe_mounts=_describe_mounts,
)
