"""Reads the messages of a coordinator, or of a temporary Job that reads the records on a claim."""

import asyncio
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, suppress

from orchestrator.aio import shielded
from orchestrator.backends.cluster_settings import Owner
from orchestrator.backends.kubernetes import client
from orchestrator.backends.kubernetes.client import ANSWER_SECONDS
from orchestrator.backends.kubernetes.pod_state import StartProspect, container_state, has_ended, waiting
from orchestrator.cluster.client import ClusterClient, owner_of
from orchestrator.cluster.coordinator_manifest import reader_job
from orchestrator.cluster.port_forward import forward_port
from orchestrator.cluster.protocol import HEARTBEAT_SECONDS, PORT, JobEnded, Message, Subscribe, read_message
from orchestrator.errors import BackendError
from orchestrator.http.errors import ConnectionBrokenError
from orchestrator.sandbox import naming

_POLL_SECONDS = 0.1
_SILENT_SECONDS = 3 * HEARTBEAT_SECONDS
_READY_SECONDS = 60.0
"""How long a reader may take to listen after its Pod runs."""


async def subscribe(cluster: ClusterClient, pod: str, follow: Subscribe) -> AsyncGenerator[Message | bytes]:
    """Send `follow` to a Pod and yield its answer: an event's line, or a message; the last is a `JobEnded`.

    Raises:
        StatusError: the cluster refuses it.
        ConnectionBrokenError: no process listens there, or the connection broke.
        TimeoutError: no data arrives.
        WireError: the other side has another version.
    """
    async with AsyncExitStack() as stack:
        async with asyncio.timeout(ANSWER_SECONDS):
            forward = await stack.enter_async_context(forward_port(cluster.api, cluster.namespace, pod, PORT))
            await forward.send(follow.to_json() + b"\n")
        lines = await stack.enter_async_context(aclosing(forward.lines()))
        while True:
            async with asyncio.timeout(_SILENT_SECONDS):
                line = await anext(lines, None)
            if line is None:
                message = "it ended before all was sent"
                raise ConnectionBrokenError(message, answered=True)
            received = read_message(line)
            yield received
            if isinstance(received, JobEnded):
                return


async def read_records(
    cluster: ClusterClient, job_id: str, follow: Callable[[], Subscribe], start_seconds: float
) -> AsyncGenerator[Message | bytes]:
    """Read the records through a reader; `follow` makes the request again after each broken connection.

    Raises:
        BackendError: the cluster refuses the reader, or it does not start.
        StatusError: as `subscribe`; so are the other errors.
    """
    clock = asyncio.get_running_loop().time
    async with run_reader(cluster, job_id, start_seconds) as pod:
        until = clock() + _READY_SECONDS
        while True:
            try:
                async with aclosing(subscribe(cluster, pod, follow())) as messages:
                    async for message in messages:
                        yield message
                        if isinstance(message, JobEnded):
                            return
            except ConnectionBrokenError:
                if clock() > until:
                    raise
            await asyncio.sleep(_POLL_SECONDS)


@asynccontextmanager
async def run_reader(cluster: ClusterClient, job_id: str, start_seconds: float) -> AsyncIterator[str]:
    """Run a reader during the block and give its Pod's name; it is deleted afterwards.

    Raises:
        BackendError: the cluster refuses the reader, or it does not start.
    """
    api, namespace = cluster.api, cluster.namespace
    name = naming.reader_name(job_id, secrets.token_hex(3), cluster.instance)
    labels = naming.coordinator_labels(job_id, cluster.claim, naming.READER)
    body = reader_job(cluster.installation.job, name, labels, cluster.claim)
    async with api.translating_errors(f"create the Job {name}"):
        owner = owner_of(await api.create(client.jobs(namespace), body))
    try:
        try:
            async with asyncio.timeout(start_seconds):
                pod = await _running(cluster, owner)
        except TimeoutError as error:
            message = f"the Job {name}, which reads the records, did not start within {start_seconds:.0f} s"
            raise BackendError(message) from error
        yield pod
    finally:
        # If it cannot be deleted now, it ends by itself.
        with suppress(BackendError):
            await shielded(cluster.delete(owner))


async def _running(cluster: ClusterClient, owner: Owner) -> str:
    api, namespace = cluster.api, cluster.namespace
    its_own = {naming.CONTROLLED_BY: owner.uid}
    while True:
        async with api.translating_errors("list the Pods"):
            pods = await api.listed(client.pods(namespace), its_own)
        for pod in pods:
            if "running" in container_state(pod):
                return str(pod["metadata"]["name"])
            waits = waiting(pod, None, ())
            if has_ended(pod) or waits.prospect is StartProspect.NONE:
                reason = waits.message if waits.prospect is StartProspect.NONE else "it ended at once"
                message = f"the Pod {pod['metadata']['name']}, which reads the records, does not run: {reason}"
                raise BackendError(message)
        await asyncio.sleep(_POLL_SECONDS)
