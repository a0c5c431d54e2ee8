"""What a Sandbox is called, and the labels by which it is found again."""

import hashlib
import re
from collections.abc import Mapping

from orchestrator.wire.identity import is_own_id

MANAGED_BY = "app.kubernetes.io/managed-by"
MANAGER = "perstack-orch"
JOB = "perstack.ai/job"
SANDBOX = "perstack.ai/sandbox"
INSTANCE = "perstack.ai/instance"
DEADLINE = "perstack.ai/deadline"
ERRAND = "perstack.ai/errand"
CLAIM = "perstack.ai/claim"
PART = "perstack.ai/part"
CONTROLLED_BY = "batch.kubernetes.io/controller-uid"
"""The cluster's own label of a Job's Pods: the uid of their Job."""
USER = "perstack.ai/user"
"""An annotation of a claim: whose it is."""

INSTALLATION, COORDINATOR, READER, WORKSPACE = "installation", "coordinator", "reader", "workspace"
"""What `PART` may be: what a chart left for submitters, a job's Job, one that reads records, a user's claim."""

_COMPONENT = r"[A-Za-z0-9]+(?:(?:\.|_{1,2}|-+)[A-Za-z0-9]+)*"
_IMAGE = re.compile(
    rf"{_COMPONENT}(?::[0-9]+(?=/))?(?:/{_COMPONENT})*(?::\w[\w.-]{{0,127}})?(?:@[A-Za-z0-9+._-]+:[0-9a-fA-F]{{32,}})?",
    re.ASCII,
)
_IMAGE_CHARACTERS = 512

_ROOM = 45
"""Characters of a name that the job may take: a DNS-1123 label holds 63, seven tell instances apart, and `-s` and nine
digits are the ordinal's."""
_DIGEST = 16
_APART = 6
_PLAIN = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?")
_ENDS_LIKE_A_DIGEST = re.compile(rf"(?:^|-)[0-9a-f]{{{_DIGEST}}}$")


def is_image_name(text: str) -> bool:
    """Whether `text` names an image: path components, with a registry, a tag or a digest (distribution/reference).

    Whatever else it was would be a part of a path in an engine's API, or a Pod that never starts.
    """
    return len(text) <= _IMAGE_CHARACTERS and _IMAGE.fullmatch(text) is not None


def sandbox_name(job: str, ordinal: int, instance: str) -> str:
    """Name the Sandbox number `ordinal` of a job of an `instance`.

    The name is a valid container name and DNS-1123 label. An id that was drawn is unique; one that a user chose may be
    that of another's job on the same engine.
    """
    return f"{_apart(job, instance)}-s{ordinal}"


def coordinator_name(job: str, ordinal: int, instance: str) -> str:
    """Name the Job that works a job of an `instance` in a cluster, for the time number `ordinal`."""
    return f"{_apart(job, instance)}-c{ordinal}"


def reader_name(job: str, drawn: str, instance: str) -> str:
    """Name a Job that reads the records of a job; `drawn` tells it from others that do."""
    return f"{_apart(job, instance)}-r{drawn}"


def lease_name(job: str, instance: str) -> str:
    """Name the Lease that only one coordinator of a job holds."""
    return _apart(job, instance)


def coordinator_labels(job: str, claim: str, part: str = COORDINATOR) -> dict[str, str]:
    """Give the labels of what works a job in a cluster, and is no Sandbox."""
    return job_labels(job) | claim_labels(claim) | {PART: part}


def _apart(job: str, instance: str) -> str:
    apart = "" if is_own_id(job) else f"-{hashlib.sha256(instance.encode(errors='surrogatepass')).hexdigest()[:_APART]}"
    return f"{_token(job)}{apart}"


def labels(job: str, *, sandbox: str, instance: str, deadline: int) -> dict[str, str]:
    """Give the labels of a Sandbox; `deadline` is Unix seconds, `instance` the orchestrator that answers for it."""
    return {
        MANAGED_BY: MANAGER,
        JOB: _token(job),
        SANDBOX: sandbox,
        INSTANCE: instance,
        DEADLINE: str(deadline),
    }


def errand_labels(labels: Mapping[str, str], deadline: int) -> dict[str, str]:
    """Give the labels of a Sandbox that works no job of a store; it is its own reason to be until `deadline`."""
    return {**labels, ERRAND: "true", DEADLINE: str(deadline)}


def job_labels(job: str) -> dict[str, str]:
    """Give the labels that all Sandboxes of a job share and no other has."""
    return {MANAGED_BY: MANAGER, JOB: _token(job)}


def instance_labels(instance: str) -> dict[str, str]:
    """Give the labels that all Sandboxes of an instance share and no other has."""
    return {MANAGED_BY: MANAGER, INSTANCE: instance}


def claim_labels(claim: str) -> dict[str, str]:
    """Give the label that all Pods share that mount one claim."""
    return {CLAIM: _token(claim)}


def job_token(job: str) -> str:
    """Give the value of the job's label: its id, or a digest where the id is no label."""
    return _token(job)


def _token(job: str) -> str:
    plain = _PLAIN.fullmatch(job) and len(job) <= _ROOM
    # An id that looks as if it were already digested is digested too: else one job could take another's name.
    if plain and not _ENDS_LIKE_A_DIGEST.search(job):
        return job
    digest = hashlib.sha256(job.encode(errors="surrogatepass")).hexdigest()[:_DIGEST]
    readable = re.sub(r"[^a-z0-9]+", "-", job.lower())[: _ROOM - _DIGEST - 1].strip("-")
    return f"{readable}-{digest}" if readable else digest
