"""What a coordinator knows of itself: its Pod says of which Job it is and which claim it has."""

from dataclasses import dataclass
from http import HTTPStatus

from orchestrator.backends import kubernetes_api
from orchestrator.backends.http import RefusalError
from orchestrator.backends.kubernetes_api import Api, Object
from orchestrator.backends.kubernetes_coordinator import CLAIM_VOLUME, broker_service
from orchestrator.backends.kubernetes_setting import Owner
from orchestrator.backends.naming import CONTROLLED_BY
from orchestrator.errors import BackendUnavailableError

_JOB_NAME = "batch.kubernetes.io/job-name"


@dataclass(frozen=True, slots=True)
class Own:
    """A Pod in its namespace, the Job that it is of, and the claim that is mounted in it."""

    namespace: str
    pod: str
    uid: str
    job: Owner
    claim: str
    labels: dict[str, str]


async def find_own(api: Api, namespace: str, pod: str) -> Own:
    """Look oneself up by the name of the Pod.

    Raises:
        BackendUnavailableError: it is not the Pod of a Job with a claim.
    """
    async with api.asked(f"tell about the Pod {pod}, which this is"):
        found = await api.read(kubernetes_api.pods(namespace, pod))
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
        message = f"the Pod {pod} is no coordinator's: it has to be of a Job, with a volume {CLAIM_VOLUME!r} of a claim"
        raise BackendUnavailableError(message)
    job = Owner(labels[_JOB_NAME], labels[CONTROLLED_BY])
    return Own(namespace, pod, found["metadata"]["uid"], job, claim, labels)


async def is_wanted(api: Api, own: Own) -> bool:
    """Whether the Job is still there and nobody deletes it: then a Pod that is stopped is replaced by another.

    Raises:
        BackendError: the cluster does not say.
    """
    async with api.asked(f"look for the Job {own.job.name}"):
        try:
            job = await api.read(kubernetes_api.jobs(own.namespace, own.job.name))
        except RefusalError as error:
            if error.status != HTTPStatus.NOT_FOUND:
                raise
            return False
    metadata = job["metadata"]
    return bool(metadata["uid"] == own.job.uid and "deletionTimestamp" not in metadata)


async def addresses(api: Api, own: Own, labels: dict[str, str], ports: tuple[int, int]) -> tuple[str, ...]:
    """Give the addresses of the Service in front of this coordinator, which is made if it is not there.

    Raises:
        BackendError: it cannot be made, or is another's.
    """
    name = own.job.name
    async with api.asked(f"create the Service {name}"):
        try:
            made = await api.create(
                kubernetes_api.services(own.namespace), broker_service(name, labels, ports, own.job)
            )
        except RefusalError as error:
            if error.status != HTTPStatus.CONFLICT:
                raise
            made = await api.read(kubernetes_api.services(own.namespace, name))
    if all(owner["uid"] != own.job.uid for owner in made["metadata"].get("ownerReferences") or ()):
        message = f"a Service {name} is in the namespace {own.namespace} already, and not this Job's: remove it"
        raise BackendUnavailableError(message)
    return _addresses(made)


def _addresses(service: Object) -> tuple[str, ...]:
    spec = service["spec"]
    return tuple(spec.get("clusterIPs") or (spec["clusterIP"],))
