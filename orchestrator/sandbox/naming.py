"""A Sandbox's name, and the labels that identify it."""

import hashlib
import re
from collections.abc import Mapping

from orchestrator.wire.identity import is_generated_id

MANAGED_BY = "app.kubernetes.io/managed-by"
MANAGER = "perstack-orch"
JOB = "perstack.ai/job"
SANDBOX = "perstack.ai/sandbox"
INSTANCE = "perstack.ai/instance"
DEADLINE = "perstack.ai/deadline"
ONE_OFF = "perstack.ai/errand"
LEASE = "perstack.ai/lease"
"""What identifies the lease of a volume that a container stands for; no other container has it."""
PACKAGE = "perstack.ai/package"
"""The label of a volume with a package of skills: the package's slug."""
CLAIM = "perstack.ai/claim"
PART = "perstack.ai/part"
CONTROLLED_BY = "batch.kubernetes.io/controller-uid"
"""The cluster's own label of a Job's Pods: the uid of their Job."""
USER = "perstack.ai/user"
"""An annotation of a claim: its user."""

INSTALLATION, COORDINATOR, READER, WORKSPACE = "installation", "coordinator", "reader", "workspace"
"""The values of `PART`: what a chart left for submitters, a job's Job, a Job that reads records, a user's claim."""

_COMPONENT = r"[A-Za-z0-9]+(?:(?:\.|_{1,2}|-+)[A-Za-z0-9]+)*"
_IMAGE = re.compile(
    rf"{_COMPONENT}(?::[0-9]+(?=/))?(?:/{_COMPONENT})*(?::\w[\w.-]{{0,127}})?(?:@[A-Za-z0-9+._-]+:[0-9a-fA-F]{{32,}})?",
    re.ASCII,
)
_IMAGE_CHARACTERS = 512

_JOB_CHARACTERS = 45
"""Characters of a name that the job may take: a DNS-1123 label holds 63; seven identify the instance, and `-s` and nine
digits are the ordinal's."""
_DIGEST_CHARACTERS = 16
_INSTANCE_CHARACTERS = 6
_PLAIN = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?")
_ENDS_LIKE_A_DIGEST = re.compile(rf"(?:^|-)[0-9a-f]{{{_DIGEST_CHARACTERS}}}$")


def is_image_name(text: str) -> bool:
    """Whether `text` names an image: path components, with a registry, a tag or a digest (distribution/reference).

    Any other text would become part of a path in an engine's API, or a Pod that never starts.
    """
    return len(text) <= _IMAGE_CHARACTERS and _IMAGE.fullmatch(text) is not None


def sandbox_name(job: str, ordinal: int, instance: str) -> str:
    """Return the name of Sandbox number `ordinal` of a job of an `instance`.

    The name is a valid container name and DNS-1123 label. A generated job id is unique; one that a user chose may also
    be used for another job on the same engine.
    """
    return f"{_unique_name(job, instance)}-s{ordinal}"


def volume_name(job: str, instance: str) -> str:
    """Return the name of the volume that has the copy of the workspace of a job."""
    return f"{_unique_name(job, instance)}-w"


def volume_lease_name(volume: str) -> str:
    """Return the name of the container that stands for the lease of a volume that a user named."""
    return f"perstack-lease-{hashlib.sha256(volume.encode()).hexdigest()[:_DIGEST_CHARACTERS]}"


def coordinator_name(job: str, ordinal: int, instance: str) -> str:
    """Return the name of the Job that works a job of an `instance` in a cluster, for launch number `ordinal`."""
    return f"{_unique_name(job, instance)}-c{ordinal}"


def reader_name(job: str, token: str, instance: str) -> str:
    """Return the name of a Job that reads the records of a job; `token` is random and makes it unique."""
    return f"{_unique_name(job, instance)}-r{token}"


def lease_name(job: str, instance: str) -> str:
    """Return the name of the Lease that only one coordinator of a job holds."""
    return _unique_name(job, instance)


def coordinator_labels(job: str, claim: str, part: str = COORDINATOR) -> dict[str, str]:
    """Return the labels of objects that work a job in a cluster and are no Sandboxes."""
    return job_labels(job) | claim_labels(claim) | {PART: part}


def _unique_name(job: str, instance: str) -> str:
    if is_generated_id(job):
        return _token(job)
    digest = hashlib.sha256(instance.encode(errors="surrogatepass")).hexdigest()
    return f"{_token(job)}-{digest[:_INSTANCE_CHARACTERS]}"


def labels(job: str, *, sandbox: str, instance: str, deadline: int) -> dict[str, str]:
    """Return the labels of a Sandbox; `deadline` is Unix seconds, `instance` the orchestrator that owns it."""
    return {
        MANAGED_BY: MANAGER,
        JOB: _token(job),
        SANDBOX: sandbox,
        INSTANCE: instance,
        DEADLINE: str(deadline),
    }


def one_off_labels(labels: Mapping[str, str], deadline: int) -> dict[str, str]:
    """Return the labels of a one-off Sandbox, which belongs to no job of a store; it may live until `deadline`."""
    return {**labels, ONE_OFF: "true", DEADLINE: str(deadline)}


def lease_labels(labels: Mapping[str, str], lease: str, deadline: int) -> dict[str, str]:
    """Return the labels of a container that stands for a lease, which may exist until `deadline` without its job."""
    return {**one_off_labels(labels, deadline), LEASE: lease}


def job_labels(job: str) -> dict[str, str]:
    """Return the labels that all Sandboxes of a job share and no other has."""
    return {MANAGED_BY: MANAGER, JOB: _token(job)}


def instance_labels(instance: str) -> dict[str, str]:
    """Return the labels that all Sandboxes of an instance share and no other has."""
    return {MANAGED_BY: MANAGER, INSTANCE: instance}


def claim_labels(claim: str) -> dict[str, str]:
    """Return the label that all Pods with one claim share."""
    return {CLAIM: _token(claim)}


def job_token(job: str) -> str:
    """Return the value of the job's label: its id, or a digest if the id is not a valid label."""
    return _token(job)


def _token(job: str) -> str:
    plain = _PLAIN.fullmatch(job) and len(job) <= _JOB_CHARACTERS
    # An id that looks like a digest is digested too: otherwise one job could take another's name.
    if plain and not _ENDS_LIKE_A_DIGEST.search(job):
        return job
    digest = hashlib.sha256(job.encode(errors="surrogatepass")).hexdigest()[:_DIGEST_CHARACTERS]
    readable = re.sub(r"[^a-z0-9]+", "-", job.lower())[: _JOB_CHARACTERS - _DIGEST_CHARACTERS - 1].strip("-")
    return f"{readable}-{digest}" if readable else digest
