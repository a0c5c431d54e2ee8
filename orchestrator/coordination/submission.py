"""Leaving a job to a cluster: the user's claim, a coordinator's Job, its Secret."""

import asyncio
import secrets
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus

from orchestrator.backends import kubernetes_api, naming
from orchestrator.backends.http import RefusalError
from orchestrator.backends.kubernetes_api import Api, Object
from orchestrator.backends.kubernetes_coordinator import coordinator_job, job_secret
from orchestrator.backends.kubernetes_installation import Installation, user_s_claim
from orchestrator.backends.kubernetes_setting import Owner
from orchestrator.backends.kubernetes_state import container_state, has_failed
from orchestrator.backends.shielded import shielded
from orchestrator.coordination.messages import FINAL
from orchestrator.errors import ConfigError
from orchestrator.keys import KEY_BYTES
from orchestrator.users import directory_name
from orchestrator.wire.identity import identify
from orchestrator.wire.job_request import KEY

RECORDS = "records"
"""Where on a claim the records are."""

_DEFAULT = "default"
_LOOK_SECONDS = 0.25
_ENDING_SECONDS = 5.0


def claim_of(user: str | None) -> str:
    """Name the claim of a user: nobody else's name leads to it, as for a directory.

    Raises:
        ConfigError: the id is empty, or no text.
    """
    if user is None:
        return _DEFAULT
    if not user or not user.isprintable():
        message = f"--user {user!r} is not usable: give the id of a user"
        raise ConfigError(message)
    return f"perstack-{directory_name(user)}"


def instance_on(namespace: str, claim: str) -> str:
    """Name the instance that the store on a claim is; see `request.instance_of`."""
    return identify("store", namespace, claim, RECORDS)


def command_about(where: Sequence[str], verb: str, job_id: str) -> str:
    """Write a command about a job as a person types it; `where` are the options that say where it is."""
    words = (verb, "--backend", "kubernetes") if verb == "resume" else (verb,)
    return shlex.join(("perstack-orch", *words, *where, job_id))


@dataclass(frozen=True, slots=True)
class Place:
    """Where one user's jobs are in a cluster; `where` are the options that lead there, as a person types them."""

    api: Api
    installation: Installation
    user: str | None
    where: tuple[str, ...]

    @property
    def namespace(self) -> str:
        """The namespace of all of it."""
        return self.installation.namespace

    @property
    def claim(self) -> str:
        """The user's claim."""
        return claim_of(self.user)

    @property
    def instance(self) -> str:
        """What Sandboxes of the user's jobs are labelled with."""
        return instance_on(self.namespace, self.claim)

    async def submit(self, job_id: str, files: Mapping[str, bytes], env_secret: str | None = None) -> Owner:
        """Make a coordinator for a job, and the claim if there is none; `files` are what it finds in its Secret.

        Raises:
            ConfigError: another works on the job already, or the claim is somebody else's.
            BackendError: the cluster does not take it.
        """
        claim_name = self.claim
        await user_s_claim(self.api, self.installation, claim_name, self.user)
        before = await self.coordinators(job_id)
        if before:
            await self._over(before[-1], job_id)
        name = naming.coordinator_name(job_id, max(map(_ordinal, before), default=0) + 1, self.instance)
        labels = naming.coordinator_labels(job_id, claim_name)
        body = coordinator_job(self.installation.job, name, labels, claim_name, env_secret)
        async with self.api.asked(f"create the Job {name}"):
            try:
                made = await self.api.create(kubernetes_api.jobs(self.namespace), body)
            except RefusalError as error:
                if error.status == HTTPStatus.CONFLICT:
                    raise self._taken(job_id) from error
                raise
        owner = Owner(name, made["metadata"]["uid"])
        try:
            secret = job_secret(name, labels, {KEY: secrets.token_bytes(KEY_BYTES), **files}, owner)
            async with self.api.asked(f"create the Secret {name}"):
                await self.api.create(kubernetes_api.secrets(self.namespace), secret)
        except BaseException:
            await shielded(self.delete(owner))
            raise
        return owner

    async def check(self) -> None:
        """See that the user has a claim.

        Raises:
            ConfigError: there is none, or it is somebody else's.
        """
        await user_s_claim(self.api, self.installation, self.claim, self.user, make=False)

    async def coordinators(self, job_id: str) -> list[Object]:
        """Give the Jobs of all coordinators of a job that are still there, the oldest first.

        Raises:
            BackendError: the cluster does not say.
        """
        # One that a chart made is managed by Helm.
        labels = {naming.PART: naming.COORDINATOR} | naming.claim_labels(self.claim)
        async with self.api.asked("list the Jobs"):
            found = await self.api.listed(kubernetes_api.jobs(self.namespace), labels)
        return sorted((job for job in found if _is_of(job, job_id)), key=_age)

    async def _over(self, job: Object, job_id: str) -> None:
        """See that a coordinator has ended; that it has is known some time after it told.

        Raises:
            ConfigError: it works.
        """
        clock = asyncio.get_running_loop().time
        until = clock() + _ENDING_SECONDS
        its_own = {naming.CONTROLLED_BY: job["metadata"]["uid"]}
        while not has_failed(job):
            async with self.api.asked("list the Pods"):
                pods = await self.api.listed(kubernetes_api.pods(self.namespace), its_own)
            if any(container_state(pod).get("terminated", {}).get("exitCode") in FINAL for pod in pods):
                return
            if clock() > until:
                raise self._taken(job_id)
            await asyncio.sleep(_LOOK_SECONDS)

    async def delete(self, owner: Owner) -> bool:
        """Delete a coordinator's Job, and with it all that is its own; say whether it was there.

        Raises:
            BackendError: the cluster does not let us.
        """
        async with self.api.asked(f"delete the Job {owner.name}"):
            return await self.api.delete(kubernetes_api.jobs(self.namespace, owner.name), owner.uid)

    def _taken(self, job_id: str) -> ConfigError:
        return ConfigError(
            f"a coordinator works on job {job_id!r} in the namespace {self.namespace} already: see it with"
            f" {command_about(self.where, 'watch', job_id)}"
        )


def owner_of(job: Object) -> Owner:
    """Give name and uid of a Job."""
    return Owner(job["metadata"]["name"], job["metadata"]["uid"])


def unnamed_job_id(uid: str) -> str:
    """Give the id of a job that nobody named, from the uid of its coordinator's Job: a schedule makes such."""
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
