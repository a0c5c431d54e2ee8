"""From options to one user's place in a cluster."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from orchestrator.backends.kubernetes_access import find_access
from orchestrator.backends.kubernetes_api import Api
from orchestrator.backends.kubernetes_installation import find_installation
from orchestrator.cli.again import whereabouts
from orchestrator.cli.history import LogOptions
from orchestrator.cli.options import ClusterOptions
from orchestrator.coordination.submission import Place


@asynccontextmanager
async def opened_place(
    options: ClusterOptions | LogOptions, user: str | None, environ: Mapping[str, str]
) -> AsyncIterator[Place]:
    """Find the installation that `options` name, with the place of `user` in it.

    Raises:
        BackendUnavailableError: no cluster is named, it does not answer, or nothing is installed there.
        ConfigError: it is not clear which is meant.
    """
    access = await find_access(environ)
    api = Api(access)
    try:
        namespace = options.namespace or access.namespace
        installation = await find_installation(api, namespace, options.installation)
        yield Place(api, installation, user, whereabouts(options, user, environ))
    finally:
        api.close()
