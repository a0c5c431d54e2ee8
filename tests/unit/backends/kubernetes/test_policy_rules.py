from typing import Any

import pytest

from orchestrator.backends.kubernetes.policy_rules import allow_dns, wider_policies

Object = dict[str, Any]

BROKER = {"to": [{"ipBlock": {"cidr": "192.0.2.2/32"}}], "ports": [{"protocol": "TCP", "port": 7443}]}
LABELS = {"managed-by": "us", "job": "j"}
OURS = {"metadata": {"name": "ours"}, "spec": {"podSelector": {"matchLabels": LABELS}, "egress": [BROKER]}}


def policy(selector: Object, egress: list[Object] | None, types: list[str] | None = None) -> Object:
    """Return a NetworkPolicy."""
    spec = {"podSelector": selector, "egress": egress, "policyTypes": types}
    return {"metadata": {"name": "other"}, "spec": {name: value for name, value in spec.items() if value is not None}}


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(policy({}, [{}]), id="everything, from everywhere"),
        pytest.param(policy({}, [{"ports": [{"port": 53}]}]), id="DNS"),
        pytest.param(policy({"matchLabels": {"job": "j"}}, [BROKER, {}], ["Egress"]), id="ours and more"),
        pytest.param(policy({"matchLabels": {"batch.kubernetes.io/job-name": "x"}}, [{}]), id="by unknown labels"),
        pytest.param(policy({"matchExpressions": [{"key": "job", "operator": "Exists"}]}, [{}]), id="exists"),
        pytest.param(
            policy({"matchExpressions": [{"key": "job", "operator": "In", "values": ["i", "j"]}]}, [{}]), id="in"
        ),
        pytest.param(
            policy({"matchExpressions": [{"key": "job", "operator": "NotIn", "values": ["i"]}]}, [{}]), id="not in"
        ),
        pytest.param(policy({"matchExpressions": [{"key": "x", "operator": "DoesNotExist"}]}, [{}]), id="not there"),
    ],
)
def test_what_widens(other: Object) -> None:
    """A policy widens if it may select our Pods and allows what ours does not."""
    assert wider_policies([OURS, other], OURS, LABELS) == ["other"]


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(policy({}, [], ["Egress"]), id="denies all"),
        pytest.param(policy({}, None, ["Egress"]), id="denies all, without rules"),
        pytest.param(policy({}, [BROKER], ["Egress"]), id="allows the same"),
        pytest.param(policy({}, [{}], ["Ingress"]), id="is about what comes in"),
        pytest.param(policy({}, None), id="has no egress"),
        pytest.param(policy({"matchLabels": {"job": "k"}}, [{}]), id="of another job"),
        pytest.param(policy({"matchLabels": {"app": "web"}}, [{}]), id="of other Pods"),
        pytest.param(
            policy({"matchExpressions": [{"key": "job", "operator": "NotIn", "values": ["j"]}]}, [{}]), id="not ours"
        ),
        pytest.param(policy({"matchExpressions": [{"key": "job", "operator": "DoesNotExist"}]}, [{}]), id="no job's"),
    ],
)
def test_what_does_not(other: Object) -> None:
    """Policies only add permissions, so one that denies, or selects other Pods, does not widen."""
    assert wider_policies([OURS, other], OURS, LABELS) == []


@pytest.mark.parametrize(
    ("rule", "allowed"),
    [
        ({}, True),
        ({"ports": [{"port": 443}, {"protocol": "UDP", "port": 53}]}, True),
        ({"ports": [{"port": 5353}]}, True),
        ({"ports": [{"port": "dns"}]}, True),
        ({"ports": [{"protocol": "UDP"}]}, True),
        ({"ports": [{"port": 1, "endPort": 1024}]}, True),
        ({"ports": [{"port": 54, "endPort": 1024}]}, False),
        ({"ports": [{"port": 443}]}, False),
    ],
)
def test_whether_dns_is_allowed_is_reported(rule: Object, allowed: bool) -> None:  # noqa: FBT001 - what is expected
    """Any rule that may cover a name server's port counts."""
    assert allow_dns([policy({}, [BROKER, rule])]) is allowed
