"""A coordinator's own Pod: the Job that it belongs to and the claim that it mounts."""

from dataclasses import dataclass
from http import HTTPStatus

from orchestrator.backends.cluster_settings import Owner
from orchestrator.backends.kubernetes import client
from orchestrator.backends.kubernetes.client import KubernetesClient, Object
from orchestrator.cluster.coordinator_manifest import CLAIM_VOLUME, broker_service
from orchestrator.errors import BackendUnavailableError
from orchestrator.http.errors import StatusError
from orchestrator.sandbox.naming import CONTROLLED_BY

_JOB_NAME = "batch.kubernetes.io/job-name"


@dataclass(frozen=True, slots=True)
class SelfPod:
    """A Pod in its namespace, the Job that it belongs to, and the claim that it mounts."""

    namespace: str
    pod: str
    uid: str
    job: Owner
    claim: str
    labels: dict[str, str]


async def find_self(api: KubernetesClient, namespace: str, pod: str) -> SelfPod:
    """Look up this process's own Pod by name.

    Raises:
        BackendUnavailableError: it is not the Pod of a Job with a claim.
    """
    async with api.translating_errors(f"describe this process's own Pod {pod}"):
        found = await api.read(client.pods(namespace, pod))
    labels = found["metadata"].get("labels") or {}
    claim = next(
        (
            volume["persistentVolumeClaim"]["claimName"]
            for volume in found["spec"].get("volumes") or ()
            if volume["name"] == CLAIM_VOLUME and "persistentVolumeClaim" in volume
        ),
        None,
    )
    if claim is None or not {_JOB_NAME, CONTROLLED_BY} <= labels.keys():
        message = f"the Pod {pod} is no coordinator's: it needs a Job and a volume {CLAIM_VOLUME!r} with a claim"
        raise BackendUnavailableError(message)
    job = Owner(labels[_JOB_NAME], labels[CONTROLLED_BY])
    return SelfPod(namespace, pod, found["metadata"]["uid"], job, claim, labels)


async def owner_exists(api: KubernetesClient, own: SelfPod) -> bool:
    """Whether the Job exists and is not being deleted: then a stopped Pod is replaced by another.

    Raises:
        BackendError: the cluster does not answer.
    """
    async with api.translating_errors(f"look for the Job {own.job.name}"):
        try:
            job = await api.read(client.jobs(own.namespace, own.job.name))
        except StatusError as error:
            if error.status != HTTPStatus.NOT_FOUND:
                raise
            return False
    metadata = job["metadata"]
    return bool(metadata["uid"] == own.job.uid and "deletionTimestamp" not in metadata)


async def addresses(
    api: KubernetesClient, own: SelfPod, labels: dict[str, str], ports: tuple[int, int]
) -> tuple[str, ...]:
    """Return the addresses of the Service in front of this coordinator; create it if it is missing.

    Raises:
        BackendError: it cannot be created, or belongs to another Job.
    """
    name = own.job.name
    async with api.translating_errors(f"create the Service {name}"):
        try:
            made = await api.create(client.services(own.namespace), broker_service(name, labels, ports, own.job))
        except StatusError as error:
            if error.status != HTTPStatus.CONFLICT:
                raise
            made = await api.read(client.services(own.namespace, name))
    if all(owner["uid"] != own.job.uid for owner in made["metadata"].get("ownerReferences") or ()):
        message = f"a Service {name} of another owner exists in the namespace {own.namespace}: remove it"
        raise BackendUnavailableError(message)
    return _addresses(made)


def _addresses(service: Object) -> tuple[str, ...]:
    spec = service["spec"]
    return tuple(spec.get("clusterIPs") or (spec["clusterIP"],))
