"""Deletes jobs in a cluster: the coordinator of one, and what ended jobs left, which is all but users' claims."""

import asyncio
from collections.abc import Mapping

from orchestrator.backends.cluster_settings import Owner
from orchestrator.backends.kubernetes import client
from orchestrator.backends.kubernetes.client import Object
from orchestrator.backends.kubernetes.pod_state import has_ended, has_failed
from orchestrator.cluster.client import ClusterClient, owner_of
from orchestrator.errors import BackendError, ConfigError
from orchestrator.sandbox import naming

_POLL_SECONDS = 0.25
_TIMEOUT_SECONDS = 120.0
_SETTLING_SECONDS = 15.0


async def cancel_job(cluster: ClusterClient, job_id: str) -> None:
    """Delete the coordinator of a job, and wait until all Pods of the job have stopped.

    Raises:
        ConfigError: no coordinator works the job.
        BackendError: the coordinator could not be deleted, or its end takes too long.
    """
    working = [owner_of(each) for each in await cluster.coordinators(job_id) if not has_failed(each)]
    if not working:
        message = f"job {job_id!r} has no coordinator in the namespace {cluster.namespace}; check the id, and --user"
        raise ConfigError(message)
    for owner in working:
        await cluster.delete(owner)
    await wait_until_gone(cluster, working, job_id)


async def clean_up(cluster: ClusterClient, *, all_users: bool) -> tuple[str, ...]:
    """Delete the coordinators that have ended and all objects of their jobs; return the names of deleted Jobs.

    Without `all_users`, only those of the user. Sandboxes are deleted before the policies that isolate them.

    Raises:
        BackendError: an object could not be deleted.
    """
    labels = {naming.MANAGED_BY: naming.MANAGER} | ({} if all_users else naming.claim_labels(cluster.claim))
    jobs = await _settled_jobs(cluster, labels)
    ended = [owner_of(job) for job in jobs if naming.PART in job["metadata"]["labels"] and has_failed(job)]
    uids = {owner.uid for owner in ended}
    sandboxes = [owner_of(job) for job in jobs if _is_owned(job, uids)]
    for group in (sandboxes, ended):
        for owner in group:
            await cluster.delete(owner)
        await wait_until_gone(cluster, group)
    return tuple(sorted(owner.name for owner in (*sandboxes, *ended)))


async def wait_until_gone(cluster: ClusterClient, owners: list[Owner], job_id: str | None = None) -> None:
    """Wait until no Pod of these Jobs runs, and no Sandbox of the job `job_id`.

    Sandboxes are checked separately: between two Pods of a coordinator only the cluster's garbage collector ends
    them, and that takes a while.

    Raises:
        BackendError: it takes too long.
    """
    left = {owner.name: {naming.CONTROLLED_BY: owner.uid} for owner in owners}
    if job_id is not None:
        left[f"Sandboxes of job {job_id!r}"] = naming.job_labels(job_id) | naming.instance_labels(cluster.instance)
    try:
        async with asyncio.timeout(_TIMEOUT_SECONDS):
            while left:
                left = {name: labels for name, labels in left.items() if await _runs(cluster, labels)}
                await asyncio.sleep(_POLL_SECONDS if left else 0)
    except TimeoutError as error:
        message = f"Pods of {', '.join(left)} may still run: not confirmed by their nodes"
        raise BackendError(message) from error


async def _settled_jobs(cluster: ClusterClient, labels: Mapping[str, str]) -> list[Object]:
    """List the Jobs, once it is known of each coordinator whose Pod ended whether its Job is over; takes seconds."""
    until = asyncio.get_running_loop().time() + _SETTLING_SECONDS
    while True:
        jobs = await _jobs(cluster, labels)
        open_ones = [job for job in jobs if naming.PART in job["metadata"]["labels"] and not has_failed(job)]
        undecided = [job for job in open_ones if await _has_all_ended(cluster, owner_of(job))]
        if not undecided or asyncio.get_running_loop().time() > until:
            return jobs
        await asyncio.sleep(_POLL_SECONDS)


async def _has_all_ended(cluster: ClusterClient, owner: Owner) -> bool:
    pods = await _pods(cluster, {naming.CONTROLLED_BY: owner.uid})
    return bool(pods) and all(has_ended(pod) for pod in pods)


async def _runs(cluster: ClusterClient, labels: Mapping[str, str]) -> bool:
    return any(not has_ended(pod) for pod in await _pods(cluster, labels))


async def _pods(cluster: ClusterClient, labels: Mapping[str, str]) -> list[Object]:
    async with cluster.api.translating_errors("list the Pods"):
        return await cluster.api.listed(client.pods(cluster.namespace), labels)


async def _jobs(cluster: ClusterClient, labels: Mapping[str, str]) -> list[Object]:
    async with cluster.api.translating_errors("list the Jobs"):
        return await cluster.api.listed(client.jobs(cluster.namespace), labels)


def _is_owned(job: Object, uids: set[str]) -> bool:
    metadata = job["metadata"]
    return naming.SANDBOX in metadata["labels"] and any(
        owner["uid"] in uids for owner in metadata.get("ownerReferences") or ()
    )
