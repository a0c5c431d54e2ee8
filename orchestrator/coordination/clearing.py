"""Taking away what ended jobs have left in a cluster: everything but users' claims."""

import asyncio
from collections.abc import Mapping

from orchestrator.backends import kubernetes_api, naming
from orchestrator.backends.kubernetes_api import Object
from orchestrator.backends.kubernetes_setting import Owner
from orchestrator.backends.kubernetes_state import has_ended, has_failed
from orchestrator.coordination.submission import Place, owner_of
from orchestrator.errors import BackendError

_LOOK_SECONDS = 0.25
_LONGEST_SECONDS = 120.0
_DECIDING_SECONDS = 15.0


async def clear(place: Place, *, everybody: bool) -> tuple[str, ...]:
    """Delete the coordinators that have ended, and with them all that was made for their jobs; give their names.

    Without `everybody` only those of the place's user. Sandboxes go before the policies that keep them in.

    Raises:
        BackendError: something could not be deleted.
    """
    labels = {naming.MANAGED_BY: naming.MANAGER} | ({} if everybody else naming.claim_labels(place.claim))
    jobs = await _decided(place, labels)
    ended = [owner_of(job) for job in jobs if naming.PART in job["metadata"]["labels"] and has_failed(job)]
    uids = {owner.uid for owner in ended}
    sandboxes = [owner_of(job) for job in jobs if _is_owned(job, uids)]
    for group in (sandboxes, ended):
        for owner in group:
            await place.delete(owner)
        await gone(place, group)
    return tuple(sorted(owner.name for owner in (*sandboxes, *ended)))


async def gone(place: Place, owners: list[Owner], job_id: str | None = None) -> None:
    """Wait until nothing of these Jobs runs any more, nor any Sandbox of the job `job_id`.

    Sandboxes are waited for by themselves: between two Pods of a coordinator nobody else ends them but the cluster,
    which takes its time to collect what was owned.

    Raises:
        BackendError: it takes too long.
    """
    left = {owner.name: {naming.CONTROLLED_BY: owner.uid} for owner in owners}
    if job_id is not None:
        left[f"Sandboxes of job {job_id!r}"] = naming.job_labels(job_id) | naming.instance_labels(place.instance)
    try:
        async with asyncio.timeout(_LONGEST_SECONDS):
            while left:
                left = {name: labels for name, labels in left.items() if await _runs(place, labels)}
                await asyncio.sleep(_LOOK_SECONDS if left else 0)
    except TimeoutError as error:
        message = f"Pods of {', '.join(left)} may still run: their nodes do not say they ended"
        raise BackendError(message) from error


async def _decided(place: Place, labels: Mapping[str, str]) -> list[Object]:
    """List the Jobs, once the cluster has said of coordinators whose Pod ended whether that was all, seconds later."""
    until = asyncio.get_running_loop().time() + _DECIDING_SECONDS
    while True:
        jobs = await _jobs(place, labels)
        open_ones = [job for job in jobs if naming.PART in job["metadata"]["labels"] and not has_failed(job)]
        undecided = [job for job in open_ones if await _has_all_ended(place, owner_of(job))]
        if not undecided or asyncio.get_running_loop().time() > until:
            return jobs
        await asyncio.sleep(_LOOK_SECONDS)


async def _has_all_ended(place: Place, owner: Owner) -> bool:
    pods = await _pods(place, {naming.CONTROLLED_BY: owner.uid})
    return bool(pods) and all(has_ended(pod) for pod in pods)


async def _runs(place: Place, labels: Mapping[str, str]) -> bool:
    return any(not has_ended(pod) for pod in await _pods(place, labels))


async def _pods(place: Place, labels: Mapping[str, str]) -> list[Object]:
    async with place.api.asked("list the Pods"):
        return await place.api.listed(kubernetes_api.pods(place.namespace), labels)


async def _jobs(place: Place, labels: Mapping[str, str]) -> list[Object]:
    async with place.api.asked("list the Jobs"):
        return await place.api.listed(kubernetes_api.jobs(place.namespace), labels)


def _is_owned(job: Object, uids: set[str]) -> bool:
    metadata = job["metadata"]
    return naming.SANDBOX in metadata["labels"] and any(
        owner["uid"] in uids for owner in metadata.get("ownerReferences") or ()
    )
