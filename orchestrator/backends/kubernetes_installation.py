"""What an installation of the chart tells those who submit jobs, and the users' claims."""

import json
from dataclasses import dataclass
from http import HTTPStatus

from orchestrator.backends import kubernetes_api, naming
from orchestrator.backends.http import RefusalError
from orchestrator.backends.kubernetes_api import Api, Object
from orchestrator.backends.kubernetes_coordinator import claim_manifest
from orchestrator.errors import BackendUnavailableError, ConfigError

_RELEASE = "app.kubernetes.io/instance"


@dataclass(frozen=True, slots=True)
class Installation:
    """Where jobs are submitted to: how a coordinator's Job and a user's claim are to be made."""

    name: str
    namespace: str
    job: Object
    claim: Object


async def find_installation(api: Api, namespace: str, name: str | None) -> Installation:
    """Find the installation in a namespace, by its name where there are several.

    Raises:
        BackendUnavailableError: there is none.
        ConfigError: there are several, or it is not what this command understands.
    """
    async with api.asked(f"look for perstack-orch in the namespace {namespace}"):
        found = await api.listed(kubernetes_api.config_maps(namespace), {naming.PART: naming.INSTALLATION})
    named = [each for each in found if name is None or name in _names(each)]
    known = ", ".join(sorted(each["metadata"]["name"] for each in found))
    if not named:
        remedy = f"there is {known}" if known else "install its chart there, or name another with --namespace"
        called = "perstack-orch" if name is None else f"the installation {name}"
        message = f"{called} is not in the namespace {namespace}: {remedy}"
        raise BackendUnavailableError(message)
    if len(named) > 1:
        message = f"several installations are in the namespace {namespace}: name one of {known} with --installation"
        raise ConfigError(message)
    return _read(named[0], namespace)


def _names(config_map: Object) -> set[str]:
    metadata = config_map["metadata"]
    return {metadata["name"], metadata["labels"].get(_RELEASE, metadata["name"])}


def _read(config_map: Object, namespace: str) -> Installation:
    name, data = config_map["metadata"]["name"], config_map.get("data") or {}
    try:
        job = json.loads(data["job.json"])
        for owner in job["metadata"].get("ownerReferences") or ():
            # What is uninstalled takes its jobs with it; who writes a chart does not know the uid.
            owner["uid"] = owner.get("uid") or config_map["metadata"]["uid"]
        return Installation(name, namespace, job, json.loads(data["claim.json"]))
    except (KeyError, ValueError) as error:
        message = f"the ConfigMap {name} in the namespace {namespace} is not of this version's chart: upgrade it"
        raise ConfigError(message) from error


async def user_s_claim(api: Api, installation: Installation, name: str, user: str | None, *, make: bool = True) -> None:
    """See that the claim `name` is there and is this user's, or nobody's in particular; `make` it if it is not there.

    Raises:
        ConfigError: it is somebody else's, or not there.
        BackendError: it cannot be made.
    """
    path = kubernetes_api.claims(installation.namespace, name)
    async with api.asked(f"look for the claim {name}"):
        found = await _claim(api, path)
    if found is None and not make:
        whose = "no job without --user" if user is None else f"no job of user {user!r}"
        message = f"there was {whose} in the namespace {installation.namespace}, which would have left the claim {name}"
        raise ConfigError(message)
    if found is None:
        owner = {} if user is None else {naming.USER: user}
        labels = {naming.MANAGED_BY: naming.MANAGER, naming.PART: naming.WORKSPACE}
        made = claim_manifest(installation.claim, name, labels, owner)
        async with api.asked(f"create the claim {name}"):
            try:
                found = await api.create(kubernetes_api.claims(installation.namespace), made)
            except RefusalError as error:
                # Another command of the same user may have been faster.
                if error.status != HTTPStatus.CONFLICT:
                    raise
                found = await api.read(path)
    _check_owner(found, installation, user)


async def _claim(api: Api, path: str) -> Object | None:
    try:
        return await api.read(path)
    except RefusalError as error:
        if error.status != HTTPStatus.NOT_FOUND:
            raise
        return None


def _check_owner(claim: Object, installation: Installation, user: str | None) -> None:
    metadata = claim["metadata"]
    where = f"the claim {metadata['name']} in the namespace {installation.namespace}"
    # What manages it differs: Helm puts its own name on what a chart makes.
    if (metadata.get("labels") or {}).get(naming.PART) != naming.WORKSPACE:
        message = (
            f"{where} was not made for perstack-orch: if users' files may go there, give it the label"
            f" {naming.PART}={naming.WORKSPACE}"
        )
        raise ConfigError(message)
    whose = (metadata.get("annotations") or {}).get(naming.USER)
    if whose != user:
        message = f"{where} is {'nobody in particular' if whose is None else repr(whose)}'s, as its annotation says"
        raise ConfigError(message)
