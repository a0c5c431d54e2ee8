"""Which rights of a coordinator's account are too many."""

from typing import Any

import pytest

from orchestrator.backends.kubernetes.preflight import COORDINATOR, superfluous

Rule = dict[str, Any]


def rule(group: str, resources: list[str], verbs: list[str]) -> Rule:
    """Return a rule as in a SelfSubjectRulesReview."""
    return {"apiGroups": [group], "resources": resources, "verbs": verbs}


OWN = [rule(group, [resource], list(verbs)) for (group, resource), verbs in COORDINATOR.items()]
EVERYBODY = [
    rule("authorization.k8s.io", ["selfsubjectaccessreviews", "selfsubjectrulesreviews"], ["create"]),
    {"apiGroups": ["", "project.openshift.io"], "resources": ["projects"], "verbs": ["list", "watch"]},
    {"apiGroups": ["", "build.openshift.io"], "resources": ["builds/docker", "builds/source"], "verbs": ["create"]},
    {"apiGroups": ["", "user.openshift.io"], "resources": ["users"], "resourceNames": ["~"], "verbs": ["get"]},
    rule("security.openshift.io", ["securitycontextconstraints"], ["use"]),
    {"apiGroups": [], "nonResourceURLs": ["/version"], "verbs": ["get"]},
]
"""What a cluster, and especially OpenShift, grants every account."""


def test_what_every_account_may_is_not_judged() -> None:
    """Rights that every account has are ignored: otherwise no account would pass."""
    assert superfluous(OWN + EVERYBODY) == []


@pytest.mark.parametrize(
    ("too_much", "told"),
    [
        (rule("", ["secrets"], ["get"]), ["get secrets"]),
        (rule("", ["pods/exec"], ["create"]), ["create pods/exec"]),
        (rule("", ["serviceaccounts/token"], ["create"]), ["create serviceaccounts/token"]),
        (rule("", ["pods"], ["get", "delete"]), ["delete pods"]),
        (rule("", ["*"], ["get"]), ["get *"]),
        (rule("", ["*/status"], ["get"]), ["get */status"]),
        (rule("*", ["projects"], ["list"]), ["list projects"]),
        (rule("apps", ["deployments"], ["create"]), ["create deployments"]),
    ],
)
def test_rights_that_are_too_many_are_reported(too_much: Rule, told: list[str]) -> None:
    """Superfluous rights are listed verb by verb, also of subresources and wildcards."""
    assert superfluous([*OWN, *EVERYBODY, too_much]) == told
