"""Removes orphaned Sandboxes of a store, or what ended jobs left in a cluster."""

import asyncio
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from orchestrator.backends import is_cluster, open_backend
from orchestrator.backends.cluster_settings import ClusterSetting
from orchestrator.cli.cluster_options import CLUSTER, read_cluster_setting
from orchestrator.cli.cwd_guard import refuse_mounted_store
from orchestrator.cli.options import RunOptions
from orchestrator.cli.output.log_lines import show_log
from orchestrator.cli.output.notices import Notices
from orchestrator.jobs.volume_lease import remove_abandoned
from orchestrator.jobs.workspace_copy import finish_copies
from orchestrator.packages.package_volumes import remove_unrecorded
from orchestrator.packages.skill_packages import PACKAGES_NAME
from orchestrator.plan.make_job import instance_of, locks_root_of, state_root_of
from orchestrator.pool.garbage_collection import remove_interrupted, remove_orphans
from orchestrator.store import Store
from orchestrator.workspace.users import store_of


def print_pruned(options: RunOptions, environ: Mapping[str, str], *, everything: bool) -> int:
    """Remove what is orphaned, with `everything` also Sandboxes that wait for `resume`; print the names.

    Raises:
        OrchestratorError: an option is invalid, or the engine or the cluster cannot be reached.
    """
    if options.coordinator == CLUSTER and is_cluster(options.backend):
        return _print(asyncio.run(_prune_cluster(options, environ)))
    cwd = Path.cwd()
    refuse_mounted_store(options.storage, cwd)
    root = store_of(cwd / options.storage, options.user)
    cluster = read_cluster_setting(options, cwd, launches=False)
    return _print(asyncio.run(_prune_store(root, options.backend, cluster, environ, everything=everything)))


async def _prune_store(
    root: Path, name: str, cluster: ClusterSetting | None, environ: Mapping[str, str], *, everything: bool
) -> tuple[str, ...]:
    """Remove orphaned Sandboxes, with `everything` also those that wait for `resume`; return their names."""
    store, instance, above = Store(root), instance_of(root, cluster), state_root_of(cluster)
    with show_log(Notices()):
        async with open_backend(name, environ, image="", cluster=cluster) as backend:
            removed = await remove_orphans(backend, store, instance, int(time.time()), above)
            cut = await remove_interrupted(backend, store, instance, above) if everything else ()
            locks = locks_root_of(cluster)
            leases = await remove_abandoned(backend, instance, locks)
            copies = await finish_copies(backend, store, instance, everything=everything, locks_root=locks)
            packages = await remove_unrecorded(backend, root / PACKAGES_NAME, instance)
    return (*removed, *cut, *leases, *copies, *packages)


async def _prune_cluster(options: RunOptions, environ: Mapping[str, str]) -> tuple[str, ...]:
    """Remove all that ended jobs left, of all users if none is named; return the names of Jobs."""
    from orchestrator.cli.cluster_client import open_cluster_client  # noqa: PLC0415 - only for jobs in a cluster
    from orchestrator.cluster.cleanup import clean_up  # noqa: PLC0415 - the same

    async with open_cluster_client(options, environ) as client:
        return await clean_up(client, all_users=options.user is None)


def _print(names: Iterable[str]) -> int:
    for name in names:
        sys.stdout.write(f"{name}\n")
    sys.stdout.flush()
    return 0
