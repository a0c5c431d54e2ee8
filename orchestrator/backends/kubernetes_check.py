"""Whether Sandboxes can run in a cluster: asked before anything is made there."""

import asyncio
import secrets
import time
from collections.abc import Coroutine, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from orchestrator.backends import kubernetes_api, naming
from orchestrator.backends.http import RefusalError
from orchestrator.backends.kubernetes_api import Api
from orchestrator.backends.kubernetes_identity import Identity
from orchestrator.backends.kubernetes_manifest import kube_job
from orchestrator.backends.kubernetes_setting import ClusterSetting
from orchestrator.errors import BackendError, BackendUnavailableError
from orchestrator.sandbox import SandboxSpec, User

NEEDED: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("batch", "jobs"): ("create", "delete", "get", "list", "watch"),
    ("", "pods"): ("get", "list", "watch"),
    ("", "pods/log"): ("get",),
    ("", "events"): ("list",),
    ("", "persistentvolumeclaims"): ("get",),
    ("networking.k8s.io", "networkpolicies"): ("create", "delete", "list", "update"),
}
"""The verbs that this backend uses, by API group and resource: all of them in one namespace."""

_NOBODY = User(65532, 65532)
_SECONDS = 60


async def check(api: Api, setting: ClusterSetting, image: str, identity: Identity) -> None:
    """Ask whether the cluster knows us, the claim, and would take a Sandbox.

    Raises:
        BackendUnavailableError: something is missing; says what, and what to do.
    """
    asked = (_check_rights(api, setting), _check_job(api, setting, image), _check_claim(api, setting))
    async with asyncio.TaskGroup() as tasks:
        outcomes = [tasks.create_task(_outcome(check)) for check in (*asked, _check_keys(api, identity))]
    # What one lacks explains what is wrong with those after it.
    for outcome in outcomes:
        if (error := outcome.result()) is not None:
            raise error


async def _outcome(check: Coroutine[None, None, None]) -> BackendError | None:
    try:
        await check
    except BackendError as error:
        return error
    return None


def missing(
    rules: Sequence[Mapping[str, Any]], needed: Mapping[tuple[str, str], tuple[str, ...]] = NEEDED
) -> list[str]:
    """Name what is needed and not granted by `rules` (SelfSubjectRulesReview, `resourceRules`)."""
    return [
        f"{verb} {resource}"
        for (group, resource), verbs in needed.items()
        for verb in verbs
        if not any(_grants(rule, group, resource, verb) for rule in rules)
    ]


def _grants(rule: Mapping[str, Any], group: str, resource: str, verb: str) -> bool:
    def has(what: str, wanted: str) -> bool:
        listed = rule.get(what) or ()
        return wanted in listed or "*" in listed

    return (
        has("apiGroups", group) and has("resources", resource) and has("verbs", verb) and not rule.get("resourceNames")
    )


async def _check_rights(api: Api, setting: ClusterSetting) -> None:
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectRulesReview",
        "spec": {"namespace": setting.namespace},
    }
    async with api.asked("say what you may do"):
        told = (await api.create("/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", review))["status"]
    lacking = missing(told.get("resourceRules") or ())
    # Where a cluster asks others for leave, the list is not all: then each call says for itself.
    if lacking and not told.get("incomplete"):
        message = (
            f"you may not {', '.join(lacking)} in the namespace {setting.namespace}: bind the Role of perstack-orch to"
            " who runs this"
        )
        raise BackendUnavailableError(message)


async def _check_claim(api: Api, setting: ClusterSetting) -> None:
    path = kubernetes_api.claims(setting.namespace, setting.claim.name)
    async with api.asked(f"look for the claim {setting.claim.name}"):
        try:
            await api.read(path)
        except RefusalError as error:
            if error.status != HTTPStatus.NOT_FOUND:
                raise
            message = (
                f"there is no claim {setting.claim.name} in the namespace {setting.namespace}; name one with --claim"
            )
            raise BackendUnavailableError(message) from error


async def _check_job(api: Api, setting: ClusterSetting, image: str) -> None:
    """Have the cluster judge a Job like those to come, without making it."""
    name, now = f"perstack-check-{secrets.token_hex(4)}", int(time.time())
    root = setting.claim.root
    spec = SandboxSpec(
        name=name,
        image=image or "perstack-orch-runtime",
        workspace=root / "ws",
        state=root / "state" / name,
        user=_NOBODY,
        deadline=now + _SECONDS,
        labels=naming.labels(name, sandbox=name, instance=name, deadline=now + _SECONDS),
    )
    async with api.asked(f"create Jobs in the namespace {setting.namespace}"):
        try:
            await api.create(kubernetes_api.jobs(setting.namespace), kube_job(spec, setting, now), dry=True)
        except RefusalError as error:
            if error.status != HTTPStatus.NOT_FOUND:
                raise
            message = f"there is no namespace {setting.namespace}; name one with --namespace"
            raise BackendUnavailableError(message) from error


async def _check_keys(api: Api, identity: Identity) -> None:
    async with api.asked("tell the keys that it signs tokens with"):
        await identity.learn()
