"""What NetworkPolicies let a Sandbox do, purely. Policies add up: each that selects a Pod can only allow more."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Object = Mapping[str, Any]


_NAMES = (53, 5353)
"""Ports of name servers: the usual one, and where OpenShift's Pods listen behind it."""

_OF_THE_CLUSTER = {"batch.kubernetes.io/job-name", "batch.kubernetes.io/controller-uid", "job-name", "controller-uid"}
"""Labels that a Job's Pod is given besides, with values that nobody knows before."""


def widening(policies: Iterable[Object], ours: Object, labels: Mapping[str, str]) -> list[str]:
    """Name the policies that let a Pod with these labels reach more than `ours` does.

    A rule that names the same peers and ports as one of ours allows no more.
    """
    allowed = ours["spec"]["egress"]
    return sorted(
        str(policy["metadata"]["name"])
        for policy in policies
        if policy["metadata"]["name"] != ours["metadata"]["name"]
        and _is_about_egress(policy["spec"])
        and _may_select(policy["spec"].get("podSelector") or {}, labels)
        and any(rule not in allowed for rule in policy["spec"].get("egress") or ())
    )


def allow_names(policies: Iterable[Object]) -> bool:
    """Whether one of these policies may let a Pod ask a name server."""
    rules = [rule for policy in policies for rule in policy["spec"].get("egress") or ()]
    return any(not rule.get("ports") or any(map(_may_be_names, rule["ports"])) for rule in rules)


def _may_be_names(port: Object) -> bool:
    number = port.get("port")
    # One that has a name is whatever the Pods behind it call so.
    return not isinstance(number, int) or any(number <= each <= port.get("endPort", number) for each in _NAMES)


def _is_about_egress(spec: Object) -> bool:
    types: Sequence[str] = spec.get("policyTypes") or ()
    # Left out, it is about egress if it has rules for it (NetworkPolicySpec).
    return "Egress" in types if types else bool(spec.get("egress"))


def _may_select(selector: Object, labels: Mapping[str, str]) -> bool:
    wanted: Mapping[str, str] = selector.get("matchLabels") or {}
    if any(key not in _OF_THE_CLUSTER and labels.get(key) != value for key, value in wanted.items()):
        return False
    return all(_may_hold(expression, labels) for expression in selector.get("matchExpressions") or ())


def _may_hold(expression: Object, labels: Mapping[str, str]) -> bool:
    key, values = expression["key"], expression.get("values") or ()
    if key in _OF_THE_CLUSTER:
        return True
    match expression["operator"]:
        case "In":
            return labels.get(key) in values
        case "NotIn":
            return labels.get(key) not in values
        case "DoesNotExist":
            return key not in labels
        case _:
            return key in labels
