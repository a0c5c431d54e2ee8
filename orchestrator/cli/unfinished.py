"""`perstack-orch resume` and `prune`: jobs that did not come to their end."""

import asyncio
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from orchestrator.backends import open_backend
from orchestrator.backends.kubernetes_setting import ClusterSetting
from orchestrator.cli.cluster import cluster_of
from orchestrator.cli.options import ClusterOptions
from orchestrator.cli.render import plain
from orchestrator.errors import StoreError
from orchestrator.request import instance_of, state_root_of
from orchestrator.store import Store
from orchestrator.sweep import sweep, sweep_cut


def coordinator(job_id: str, storage: str) -> str:
    """Read which Expert a job is of.

    Raises:
        StoreError: there is no such job, or its record is damaged.
    """
    record = Store(Path.cwd() / storage).job(job_id)
    if record is None:
        message = f"job {job_id!r} is not in the store {storage}; see perstack-orch log --jobs"
        raise StoreError(message)
    return record.coordinator_expert_key


def remove(storage: str, backend: str, options: ClusterOptions, environ: Mapping[str, str], *, everything: bool) -> int:
    """Remove what nobody answers for, with `everything` also what waits for `resume`; write the names to stdout.

    Raises:
        OrchestratorError: the engine cannot be used, or some Sandbox not be removed.
    """
    cluster = cluster_of(backend, options, Path.cwd(), launches=False)
    for name in asyncio.run(_removed(Path.cwd() / storage, backend, cluster, environ, everything=everything)):
        sys.stdout.write(f"{name}\n")
    sys.stdout.flush()
    return 0


async def _removed(
    root: Path, name: str, cluster: ClusterSetting | None, environ: Mapping[str, str], *, everything: bool
) -> tuple[str, ...]:
    store, instance, above = Store(root), instance_of(root, cluster), state_root_of(cluster)
    async with open_backend(name, environ, image="", cluster=cluster) as backend:
        removed = await sweep(backend, store, instance, int(time.time()), above, _complain)
        cut = await sweep_cut(backend, store, instance, above, _complain) if everything else ()
    return (*removed, *cut)


def _complain(text: str) -> None:
    sys.stderr.write(f"perstack-orch: {plain(text)}\n")
