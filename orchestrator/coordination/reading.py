"""Hearing what a coordinator tells, or a Job that reads the records on a claim, made for as long as that takes."""

import asyncio
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, suppress

from orchestrator.backends import kubernetes_api, naming
from orchestrator.backends.http import BrokenError
from orchestrator.backends.kubernetes_api import ANSWER_SECONDS
from orchestrator.backends.kubernetes_coordinator import reader_job
from orchestrator.backends.kubernetes_forward import forwarded
from orchestrator.backends.kubernetes_setting import Owner
from orchestrator.backends.kubernetes_state import Hope, container_state, has_ended, waiting
from orchestrator.backends.shielded import shielded
from orchestrator.coordination.messages import BEAT_SECONDS, PORT, Ended, Follow, Message, read_message
from orchestrator.coordination.submission import Place, owner_of
from orchestrator.errors import BackendError

_LOOK_SECONDS = 0.1
_SILENT_SECONDS = 3 * BEAT_SECONDS
_READY_SECONDS = 60.0
"""How long what reads may take from when its Pod runs until it listens."""


async def heard(place: Place, pod: str, follow: Follow) -> AsyncGenerator[Message | bytes]:
    """Ask a Pod, and give what it says: an event's line, or a message; the last is an `Ended`.

    Raises:
        RefusalError: the cluster does not let us.
        BrokenError: nobody listens there, or the connection broke.
        TimeoutError: nothing comes.
        WireError: another version speaks there.
    """
    async with AsyncExitStack() as stack:
        async with asyncio.timeout(ANSWER_SECONDS):
            forward = await stack.enter_async_context(forwarded(place.api, place.namespace, pod, PORT))
            await forward.send(follow.to_json() + b"\n")
        lines = await stack.enter_async_context(aclosing(forward.lines()))
        while True:
            async with asyncio.timeout(_SILENT_SECONDS):
                line = await anext(lines, None)
            if line is None:
                message = "it ended before all was told"
                raise BrokenError(message, answered=True)
            told = read_message(line)
            yield told
            if isinstance(told, Ended):
                return


async def read(
    place: Place, job_id: str, follow: Callable[[], Follow], start_seconds: float
) -> AsyncGenerator[Message | bytes]:
    """Have the records read; `follow` says what is wanted, anew whenever the connection broke.

    Raises:
        BackendError: the cluster does not take what reads, or it does not come to run.
        RefusalError: as `heard`, and so on.
    """
    clock = asyncio.get_running_loop().time
    async with reader(place, job_id, start_seconds) as pod:
        until = clock() + _READY_SECONDS
        while True:
            try:
                async with aclosing(heard(place, pod, follow())) as telling:
                    async for told in telling:
                        yield told
                        if isinstance(told, Ended):
                            return
            except BrokenError:
                if clock() > until:
                    raise
            await asyncio.sleep(_LOOK_SECONDS)


@asynccontextmanager
async def reader(place: Place, job_id: str, start_seconds: float) -> AsyncIterator[str]:
    """Have one that runs, by the name of its Pod; it is deleted afterwards.

    Raises:
        BackendError: the cluster does not take it, or it does not come to run.
    """
    api, namespace = place.api, place.namespace
    name = naming.reader_name(job_id, secrets.token_hex(3), place.instance)
    labels = naming.coordinator_labels(job_id, place.claim, naming.READER)
    body = reader_job(place.installation.job, name, labels, place.claim)
    async with api.asked(f"create the Job {name}"):
        owner = owner_of(await api.create(kubernetes_api.jobs(namespace), body))
    try:
        try:
            async with asyncio.timeout(start_seconds):
                pod = await _running(place, owner)
        except TimeoutError as error:
            message = f"what reads the records, the Job {name}, did not start within {start_seconds:.0f} s"
            raise BackendError(message) from error
        yield pod
    finally:
        # It ends by itself where that cannot be said.
        with suppress(BackendError):
            await shielded(place.delete(owner))


async def _running(place: Place, owner: Owner) -> str:
    api, namespace = place.api, place.namespace
    its_own = {naming.CONTROLLED_BY: owner.uid}
    while True:
        async with api.asked("list the Pods"):
            pods = await api.listed(kubernetes_api.pods(namespace), its_own)
        for pod in pods:
            if "running" in container_state(pod):
                return str(pod["metadata"]["name"])
            waits = waiting(pod, None, ())
            if has_ended(pod) or waits.hope is Hope.NONE:
                said = waits.message if waits.hope is Hope.NONE else "it ended at once"
                message = f"what reads the records, the Pod {pod['metadata']['name']}, does not run: {said}"
                raise BackendError(message)
        await asyncio.sleep(_LOOK_SECONDS)
