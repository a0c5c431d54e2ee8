"""From options to one user's jobs in a cluster."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from orchestrator.backends.kubernetes.auth import find_credentials
from orchestrator.backends.kubernetes.client import KubernetesClient
from orchestrator.cli.command_line import format_location
from orchestrator.cli.options import RecordsOptions, RunOptions
from orchestrator.cluster.client import ClusterClient
from orchestrator.cluster.installation import find_installation


@asynccontextmanager
async def open_cluster_client(
    options: RunOptions | RecordsOptions, environ: Mapping[str, str]
) -> AsyncIterator[ClusterClient]:
    """Connect to the installation that `options` name, for the jobs of their user.

    Raises:
        BackendUnavailableError: no cluster is configured, it does not answer, or it has no installation.
        ConfigError: the options fit several installations.
    """
    access = await find_credentials(environ)
    api = KubernetesClient(access)
    try:
        namespace = options.namespace or access.namespace
        installation = await find_installation(api, namespace, options.installation)
        yield ClusterClient(api, installation, options.user, format_location(options, environ))
    finally:
        api.close()
