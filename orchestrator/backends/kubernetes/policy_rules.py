"""Which NetworkPolicies let a Pod reach more than another does; pure."""

from collections.abc import Iterable, Mapping, Sequence

from orchestrator.backends.kubernetes.client import Object

_DNS_PORTS = (53, 5353)
"""Ports of name servers: the usual one, and the one on which OpenShift's Pods listen."""

_CLUSTER_LABELS = {"batch.kubernetes.io/job-name", "batch.kubernetes.io/controller-uid", "job-name", "controller-uid"}
"""Labels that the cluster adds to a Job's Pod, with values that are not known in advance."""


def wider_policies(policies: Iterable[Object], ours: Object, labels: Mapping[str, str]) -> list[str]:
    """Return the names of policies that let a Pod with these labels reach more than `ours` does.

    A rule with the same peers and ports as one of ours allows no more.
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


def allow_dns(policies: Iterable[Object]) -> bool:
    """Whether one of these policies may let a Pod query a name server."""
    rules = [rule for policy in policies for rule in policy["spec"].get("egress") or ()]
    return any(not rule.get("ports") or any(map(_may_be_dns, rule["ports"])) for rule in rules)


def _may_be_dns(port: Object) -> bool:
    number = port.get("port")
    # A named port is whatever port the selected Pods give that name.
    return not isinstance(number, int) or any(number <= each <= port.get("endPort", number) for each in _DNS_PORTS)


def _is_about_egress(spec: Object) -> bool:
    types: Sequence[str] = spec.get("policyTypes") or ()
    # Without `policyTypes`, a policy applies to egress if it has egress rules (NetworkPolicySpec).
    return "Egress" in types if types else bool(spec.get("egress"))


def _may_select(selector: Object, labels: Mapping[str, str]) -> bool:
    wanted: Mapping[str, str] = selector.get("matchLabels") or {}
    if any(key not in _CLUSTER_LABELS and labels.get(key) != value for key, value in wanted.items()):
        return False
    return all(_may_match(expression, labels) for expression in selector.get("matchExpressions") or ())


def _may_match(expression: Object, labels: Mapping[str, str]) -> bool:
    key, values = expression["key"], expression.get("values") or ()
    if key in _CLUSTER_LABELS:
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
