"""The settings that an installation of the chart publishes for submitters, and the users' claims."""

import json
from dataclasses import dataclass
from http import HTTPStatus

from orchestrator.backends.kubernetes import client
from orchestrator.backends.kubernetes.client import KubernetesClient, Object
from orchestrator.cluster.coordinator_manifest import claim_manifest
from orchestrator.errors import BackendUnavailableError, ConfigError
from orchestrator.http.errors import StatusError
from orchestrator.sandbox import naming

_RELEASE = "app.kubernetes.io/instance"


@dataclass(frozen=True, slots=True)
class Installation:
    """Where jobs are submitted to: the templates of a coordinator's Job and of a user's claim."""

    name: str
    namespace: str
    job: Object
    claim: Object


async def find_installation(api: KubernetesClient, namespace: str, name: str | None) -> Installation:
    """Find the installation in a namespace; `name` selects one where several exist.

    Raises:
        BackendUnavailableError: none exists.
        ConfigError: several exist, or its version does not match this command.
    """
    async with api.translating_errors(f"look for perstack-orch in the namespace {namespace}"):
        found = await api.listed(client.config_maps(namespace), {naming.PART: naming.INSTALLATION})
    named = [each for each in found if name is None or name in _names(each)]
    known = ", ".join(sorted(each["metadata"]["name"] for each in found))
    if not named:
        remedy = f"it has {known}" if known else "install its chart there, or name another with --namespace"
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
            # Uninstalling the chart deletes its jobs; a chart's author cannot know the uid.
            owner["uid"] = owner.get("uid") or config_map["metadata"]["uid"]
        return Installation(name, namespace, job, json.loads(data["claim.json"]))
    except (KeyError, ValueError) as error:
        message = f"the ConfigMap {name} in the namespace {namespace} is not of this version's chart: upgrade the chart"
        raise ConfigError(message) from error


async def ensure_claim(
    api: KubernetesClient, installation: Installation, name: str, user: str | None, *, make: bool = True
) -> None:
    """Check that the claim `name` exists and belongs to `user`, or to no user if that is None; `make` a missing one.

    Raises:
        ConfigError: it belongs to another user, or is missing.
        BackendError: it cannot be created.
    """
    path = client.claims(installation.namespace, name)
    async with api.translating_errors(f"look for the claim {name}"):
        found = await _claim(api, path)
    if found is None and not make:
        whose = "no job without --user" if user is None else f"no job of user {user!r}"
        message = f"{whose} ran in the namespace {installation.namespace}: its claim {name} does not exist"
        raise ConfigError(message)
    if found is None:
        owner = {} if user is None else {naming.USER: user}
        labels = {naming.MANAGED_BY: naming.MANAGER, naming.PART: naming.WORKSPACE}
        made = claim_manifest(installation.claim, name, labels, owner)
        async with api.translating_errors(f"create the claim {name}"):
            try:
                found = await api.create(client.claims(installation.namespace), made)
            except StatusError as error:
                # Another command of the same user may have created it meanwhile.
                if error.status != HTTPStatus.CONFLICT:
                    raise
                found = await api.read(path)
    _check_owner(found, installation, user)


async def _claim(api: KubernetesClient, path: str) -> Object | None:
    try:
        return await api.read(path)
    except StatusError as error:
        if error.status != HTTPStatus.NOT_FOUND:
            raise
        return None


def _check_owner(claim: Object, installation: Installation, user: str | None) -> None:
    metadata = claim["metadata"]
    where = f"the claim {metadata['name']} in the namespace {installation.namespace}"
    # `managed-by` is no criterion: Helm sets its own name on what a chart creates.
    if (metadata.get("labels") or {}).get(naming.PART) != naming.WORKSPACE:
        message = (
            f"{where} was not made for perstack-orch: if users' files may go there, give it the label"
            f" {naming.PART}={naming.WORKSPACE}"
        )
        raise ConfigError(message)
    whose = (metadata.get("annotations") or {}).get(naming.USER)
    if whose != user:
        message = f"{where} belongs to {'no user' if whose is None else repr(whose)}, by its annotation"
        raise ConfigError(message)
