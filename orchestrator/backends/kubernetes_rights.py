"""What a coordinator's account may do in its namespace: what it needs, and no more."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from orchestrator.backends.kubernetes_api import Api
from orchestrator.backends.kubernetes_check import NEEDED, missing
from orchestrator.errors import BackendUnavailableError

COORDINATOR: Mapping[tuple[str, str], tuple[str, ...]] = {
    **NEEDED,
    ("", "services"): ("create", "get"),
    ("coordination.k8s.io", "leases"): ("create", "delete", "get", "update"),
}
"""The verbs that a coordinator in the cluster uses, by API group and resource: the backend's, the Service in front of
its broker, and its fence."""

SUBMITTER: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("", "configmaps"): ("list",),
    ("", "persistentvolumeclaims"): ("create", "get"),
    ("", "secrets"): ("create",),
    ("", "pods"): ("list",),
    # A WebSocket is a GET; from Kubernetes 1.35 on it takes the right to create as well.
    ("", "pods/portforward"): ("create", "get"),
    ("", "events"): ("list",),
    ("batch", "jobs"): ("create", "delete", "get", "list"),
}
"""The same of whoever submits jobs, watches, cancels and prunes them. A Sandbox's account has none."""

_JUDGED = {"apps", "batch", "coordination.k8s.io", "networking.k8s.io", "policy", "rbac.authorization.k8s.io"}
"""API groups that are all about what runs in a namespace; every account may ask a cluster for some others."""

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
"""The resources of the group without a name, which is judged by them: OpenShift grants every account rules about others
there, such as `projects` and `builds/docker`."""


def superfluous(rules: Sequence[Mapping[str, Any]]) -> list[str]:
    """Name what `rules` (SelfSubjectRulesReview, `resourceRules`) grant and a coordinator does not need."""
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


async def check_rights(api: Api, namespace: str) -> None:
    """Ask whether this account may do exactly what a coordinator needs.

    Raises:
        BackendUnavailableError: something is missing, or too much; says what.
    """
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectRulesReview",
        "spec": {"namespace": namespace},
    }
    async with api.asked("say what this account may do"):
        told = (await api.create("/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", review))["status"]
    rules = told.get("resourceRules") or ()
    lacking, too_much = missing(rules, COORDINATOR), superfluous(rules)
    if lacking or too_much:
        wrong = [f"may not {', '.join(lacking)}"] * bool(lacking) + [f"may {', '.join(too_much)}"] * bool(too_much)
        message = (
            f"the coordinator's account {' and '.join(wrong)} in the namespace {namespace}: look for RoleBindings that"
            " are not the chart's, or upgrade it"
        )
        raise BackendUnavailableError(message)
