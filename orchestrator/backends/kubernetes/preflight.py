"""Checks whether Sandboxes can run in a cluster, before anything is created there."""

import asyncio
import secrets
import time
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from orchestrator.backends.cluster_settings import ClusterSetting
from orchestrator.backends.kubernetes import client
from orchestrator.backends.kubernetes.client import KubernetesClient
from orchestrator.backends.kubernetes.manifest import kube_job
from orchestrator.backends.kubernetes.pod_tokens import PodTokenVerifier
from orchestrator.errors import BackendError, BackendUnavailableError
from orchestrator.http.errors import StatusError
from orchestrator.sandbox import naming
from orchestrator.sandbox.api import SandboxSpec, User

NEEDED: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("batch", "jobs"): ("create", "delete", "get", "list", "watch"),
    ("", "pods"): ("get", "list", "watch"),
    ("", "pods/log"): ("get",),
    ("", "events"): ("list",),
    ("", "persistentvolumeclaims"): ("get",),
    ("networking.k8s.io", "networkpolicies"): ("create", "delete", "list", "update"),
}
"""The verbs that this backend uses, by API group and resource: all of them in one namespace."""

_REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews"
_UNPRIVILEGED = User(65532, 65532)
_SECONDS = 60


async def check(api: KubernetesClient, setting: ClusterSetting, image: str, identity: PodTokenVerifier) -> None:
    """Check our rights, the claim, the signing keys, and that the cluster would accept a Sandbox.

    Raises:
        BackendUnavailableError: something is missing; the message names it and the remedy.
    """
    checks = (_check_rights(api, setting), _check_job(api, setting, image), _check_claim(api, setting))
    async with asyncio.TaskGroup() as tasks:
        outcomes = [tasks.create_task(_outcome(check)) for check in (*checks, _check_keys(api, identity))]
    # An earlier check's failure explains those of the later ones.
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
    """Return what is `needed` and not granted by `rules` (SelfSubjectRulesReview, `resourceRules`)."""
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


async def review_rules(api: KubernetesClient, namespace: str) -> Mapping[str, Any]:
    """Return the status of a SelfSubjectRulesReview: the rules of this account in a namespace."""
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectRulesReview",
        "spec": {"namespace": namespace},
    }
    status: Mapping[str, Any] = (await api.create(_REVIEWS, review))["status"]
    return status


async def _check_rights(api: KubernetesClient, setting: ClusterSetting) -> None:
    async with api.translating_errors("report what you may do"):
        rules = await review_rules(api, setting.namespace)
    lacking = missing(rules.get("resourceRules") or ())
    # With external authorizers the list is incomplete; then each call reports its own refusal.
    if lacking and not rules.get("incomplete"):
        message = (
            f"you may not {', '.join(lacking)} in the namespace {setting.namespace}: bind the Role of perstack-orch to"
            " the account that runs this command"
        )
        raise BackendUnavailableError(message)


async def _check_claim(api: KubernetesClient, setting: ClusterSetting) -> None:
    path = client.claims(setting.namespace, setting.claim.name)
    async with api.translating_errors(f"look for the claim {setting.claim.name}"):
        try:
            await api.read(path)
        except StatusError as error:
            if error.status != HTTPStatus.NOT_FOUND:
                raise
            message = (
                f"no claim {setting.claim.name} exists in the namespace {setting.namespace}; name one with --claim"
            )
            raise BackendUnavailableError(message) from error


async def _check_job(api: KubernetesClient, setting: ClusterSetting, image: str) -> None:
    """Send a Job like the later ones to the cluster as a dry run."""
    name, now = f"perstack-check-{secrets.token_hex(4)}", int(time.time())
    root = setting.claim.root
    spec = SandboxSpec(
        name=name,
        image=image or "perstack-orch-runtime",
        workspace=root / "ws",
        state=root / "state" / name,
        user=_UNPRIVILEGED,
        deadline=now + _SECONDS,
        labels=naming.labels(name, sandbox=name, instance=name, deadline=now + _SECONDS),
    )
    async with api.translating_errors(f"create Jobs in the namespace {setting.namespace}"):
        try:
            await api.create(client.jobs(setting.namespace), kube_job(spec, setting, now), dry=True)
        except StatusError as error:
            if error.status != HTTPStatus.NOT_FOUND:
                raise
            message = f"no namespace {setting.namespace} exists; name one with --namespace"
            raise BackendUnavailableError(message) from error


async def _check_keys(api: KubernetesClient, identity: PodTokenVerifier) -> None:
    async with api.translating_errors("report the keys that it signs tokens with"):
        await identity.learn()


COORDINATOR: Mapping[tuple[str, str], tuple[str, ...]] = {
    **NEEDED,
    ("", "services"): ("create", "get"),
    ("coordination.k8s.io", "leases"): ("create", "delete", "get", "update"),
}
"""The verbs that a coordinator in the cluster uses, by API group and resource: the backend's, the Service in front of
its broker, and its Lease."""

SUBMITTER: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("", "configmaps"): ("list",),
    ("", "persistentvolumeclaims"): ("create", "get"),
    ("", "secrets"): ("create",),
    ("", "pods"): ("list",),
    # A WebSocket is a GET; from Kubernetes 1.35 on it also needs the right to create.
    ("", "pods/portforward"): ("create", "get"),
    ("", "events"): ("list",),
    ("batch", "jobs"): ("create", "delete", "get", "list"),
}
"""The same for accounts that submit, watch, cancel and prune jobs. A Sandbox's account has no rights."""

_JUDGED = {"apps", "batch", "coordination.k8s.io", "networking.k8s.io", "policy", "rbac.authorization.k8s.io"}
"""API groups that only concern what runs in a namespace; in some others the cluster grants every account rights."""

_CORE = {
    "bindings",
    "configmaps",
    "endpoints",
    "events",
    "limitranges",
    "namespaces",
    "nodes",
    "persistentvolumeclaims",
    "persistentvolumes",
    "pods",
    "podtemplates",
    "replicationcontrollers",
    "resourcequotas",
    "secrets",
    "serviceaccounts",
    "services",
}
"""The resources of the core group that are checked: OpenShift grants every account rules about others there, such as
`projects` and `builds/docker`."""


def superfluous(rules: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what `rules` (SelfSubjectRulesReview, `resourceRules`) grant and a coordinator does not need."""
    return sorted({each for rule in rules for each in _granted(rule)})


def _granted(rule: Mapping[str, Any]) -> Iterator[str]:
    for group in rule.get("apiGroups") or ():
        for resource in rule.get("resources") or ():
            if not _is_judged(group, resource):
                continue
            needed = COORDINATOR.get((group, resource), ())
            yield from (f"{verb} {resource}" for verb in rule["verbs"] if verb not in needed)


def _is_judged(group: str, resource: str) -> bool:
    return group == "*" or group in _JUDGED or (not group and resource.partition("/")[0] in {"*", *_CORE})


async def check_rights(api: KubernetesClient, namespace: str) -> None:
    """Check that this account may do exactly what a coordinator needs.

    Raises:
        BackendUnavailableError: a right is missing, or superfluous; the message names it.
    """
    async with api.translating_errors("report what this account may do"):
        rules = (await review_rules(api, namespace)).get("resourceRules") or ()
    lacking, too_much = missing(rules, COORDINATOR), superfluous(rules)
    if lacking or too_much:
        wrong = [f"may not {', '.join(lacking)}"] * bool(lacking) + [f"may {', '.join(too_much)}"] * bool(too_much)
        message = (
            f"the coordinator's account {' and '.join(wrong)} in the namespace {namespace}: look for RoleBindings that"
            " are not the chart's, or upgrade the chart"
        )
        raise BackendUnavailableError(message)
