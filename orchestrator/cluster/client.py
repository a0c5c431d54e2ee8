"""A client's view of an installation in a cluster: it submits, lists and deletes a user's coordinators."""

import asyncio
import secrets
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus

from orchestrator.aio import shielded
from orchestrator.backends.cluster_settings import Owner
from orchestrator.backends.kubernetes import client
from orchestrator.backends.kubernetes.client import KubernetesClient, Object
from orchestrator.backends.kubernetes.pod_state import container_state, has_failed
from orchestrator.cluster.coordinator_manifest import coordinator_job, job_secret
from orchestrator.cluster.installation import Installation, ensure_claim
from orchestrator.cluster.job_request import KEY
from orchestrator.cluster.protocol import FINAL, JobEnded
from orchestrator.errors import ConfigError
from orchestrator.http.errors import StatusError
from orchestrator.sandbox import naming
from orchestrator.sandbox.keys import KEY_BYTES
from orchestrator.wire.identity import identify
from orchestrator.workspace.users import directory_name

RECORDS = "records"
"""The directory of the records on a claim."""

_DEFAULT = "default"
_CANCELLED = 4
_POLL_SECONDS = 0.25
_ENDING_SECONDS = 5.0


def claim_of(user: str | None) -> str:
    """Return the name of a user's claim; no other user has the same, as for directories.

    Raises:
        ConfigError: the id is empty, or not printable text.
    """
    if user is None:
        return _DEFAULT
    if not user or not user.isprintable():
        message = f"--user {user!r} is not usable: give the id of a user"
        raise ConfigError(message)
    return f"perstack-{directory_name(user)}"


def instance_on(namespace: str, claim: str) -> str:
    """Return the instance of the store on a claim; see `make_job.instance_of`."""
    return identify("store", namespace, claim, RECORDS)


def command_about(where: Sequence[str], verb: str, job_id: str) -> str:
    """Return a command about a job as the user would type it; `where` are the options that locate it."""
    arguments = (verb, "--backend", "kubernetes") if verb == "resume" else (verb,)
    return shlex.join(("perstack-orch", *arguments, *where, job_id))


def cancelled(where: Sequence[str], job_id: str) -> JobEnded:
    """Describe the end of a job that a user cancelled."""
    resume = command_about(where, "resume", job_id)
    return JobEnded(code=_CANCELLED, error=f"job {job_id!r} was cancelled; resume it with {resume}")


@dataclass(frozen=True, slots=True)
class ClusterClient:
    """One user's jobs in a cluster; `where` are the options that locate them, as the user would type them."""

    api: KubernetesClient
    installation: Installation
    user: str | None
    where: tuple[str, ...]

    @property
    def namespace(self) -> str:
        """The namespace of all objects."""
        return self.installation.namespace

    @property
    def claim(self) -> str:
        """The user's claim."""
        return claim_of(self.user)

    @property
    def instance(self) -> str:
        """The instance in the labels of the user's Sandboxes."""
        return instance_on(self.namespace, self.claim)

    async def submit(self, job_id: str, files: Mapping[str, bytes], env_secret: str | None = None) -> Owner:
        """Create a coordinator for a job, and the claim if it is missing; `files` is the content of its Secret.

        Raises:
            ConfigError: another coordinator works on the job, or the claim belongs to another user.
            BackendError: the cluster refuses it.
        """
        claim_name = self.claim
        await ensure_claim(self.api, self.installation, claim_name, self.user)
        before = await self.coordinators(job_id)
        if before:
            await self._require_ended(before[-1], job_id)
        name = naming.coordinator_name(job_id, max(map(_ordinal, before), default=0) + 1, self.instance)
        labels = naming.coordinator_labels(job_id, claim_name)
        body = coordinator_job(self.installation.job, name, labels, claim_name, env_secret)
        async with self.api.translating_errors(f"create the Job {name}"):
            try:
                made = await self.api.create(client.jobs(self.namespace), body)
            except StatusError as error:
                if error.status == HTTPStatus.CONFLICT:
                    raise self._conflict(job_id) from error
                raise
        owner = Owner(name, made["metadata"]["uid"])
        try:
            secret = job_secret(name, labels, {KEY: secrets.token_bytes(KEY_BYTES), **files}, owner)
            async with self.api.translating_errors(f"create the Secret {name}"):
                await self.api.create(client.secrets(self.namespace), secret)
        except BaseException:
            await shielded(self.delete(owner))
            raise
        return owner

    async def check(self) -> None:
        """Check that the user has a claim.

        Raises:
            ConfigError: the claim does not exist, or belongs to another user.
        """
        await ensure_claim(self.api, self.installation, self.claim, self.user, make=False)

    async def coordinators(self, job_id: str) -> list[Object]:
        """List the existing Jobs of all coordinators of a job, the oldest first.

        Raises:
            BackendError: the cluster does not answer.
        """
        # Not selected by `managed-by`: a Job of the chart is managed by Helm.
        labels = {naming.PART: naming.COORDINATOR} | naming.claim_labels(self.claim)
        async with self.api.translating_errors("list the Jobs"):
            found = await self.api.listed(client.jobs(self.namespace), labels)
        return sorted((job for job in found if _is_of(job, job_id)), key=_age)

    async def _require_ended(self, job: Object, job_id: str) -> None:
        """Check that a coordinator has ended; the cluster reports that some time after the coordinator does.

        Raises:
            ConfigError: it still works.
        """
        clock = asyncio.get_running_loop().time
        until = clock() + _ENDING_SECONDS
        its_own = {naming.CONTROLLED_BY: job["metadata"]["uid"]}
        while not has_failed(job):
            async with self.api.translating_errors("list the Pods"):
                pods = await self.api.listed(client.pods(self.namespace), its_own)
            if any(container_state(pod).get("terminated", {}).get("exitCode") in FINAL for pod in pods):
                return
            if clock() > until:
                raise self._conflict(job_id)
            await asyncio.sleep(_POLL_SECONDS)

    async def delete(self, owner: Owner) -> bool:
        """Delete a coordinator's Job and all that it owns; return whether it existed.

        Raises:
            BackendError: the cluster refuses it.
        """
        async with self.api.translating_errors(f"delete the Job {owner.name}"):
            return await self.api.delete(client.jobs(self.namespace, owner.name), owner.uid)

    def _conflict(self, job_id: str) -> ConfigError:
        return ConfigError(
            f"a coordinator works on job {job_id!r} in the namespace {self.namespace} already: watch it with"
            f" {command_about(self.where, 'watch', job_id)}"
        )


def owner_of(job: Object) -> Owner:
    """Return the name and uid of a Job."""
    return Owner(job["metadata"]["name"], job["metadata"]["uid"])


def unnamed_job_id(uid: str) -> str:
    """Return the id of a job without a given id, from the uid of its coordinator's Job, such as one of a schedule."""
    return identify("job", uid)


def _is_of(job: Object, job_id: str) -> bool:
    named = job["metadata"]["labels"].get(naming.JOB)
    if named is None:
        return unnamed_job_id(job["metadata"]["uid"]) == job_id
    return bool(named == naming.job_token(job_id))


def _age(job: Object) -> tuple[str, int]:
    return str(job["metadata"]["creationTimestamp"]), _ordinal(job)


def _ordinal(job: Object) -> int:
    number = job["metadata"]["name"].rpartition("-c")[2]
    return int(number) if number.isdecimal() else 0
