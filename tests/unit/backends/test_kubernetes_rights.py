"""Which rights of a coordinator's account are too many."""

from typing import Any

import pytest

from orchestrator.backends.kubernetes_rights import COORDINATOR, superfluous

Rule = dict[str, Any]


def rule(group: str, resources: list[str], verbs: list[str]) -> Rule:
    """Write a rule as a SelfSubjectRulesReview has it."""
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
"""What a cluster, and OpenShift above all, grants whoever asks."""


def test_what_every_account_may_is_not_judged() -> None:
    """Else the account of no cluster would be right."""
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
def test_what_is_too_much_is_told(too_much: Rule, told: list[str]) -> None:
    """Verb by verb, also of parts of a resource and of everything at once."""
    assert superfluous([*OWN, *EVERYBODY, too_much]) == told
