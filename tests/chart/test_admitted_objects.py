"""What a coordinator may write and delete besides Sandboxes, to an API server with the chart's policies."""

import copy
import json

import pytest

from orchestrator.backends import naming
from orchestrator.backends.kubernetes_coordinator import reader_job
from orchestrator.backends.kubernetes_manifest import network_policy
from tests.support.admitted import (
    OTHERS,
    Change,
    cases,
    completed,
    pod_of,
    put,
    sandbox,
    setting,
    spec,
)
from tests.support.chart import FULLNAME, Manifest
from tests.support.tenant import SUBMITTER, Tenant

pytestmark = [pytest.mark.kubernetes, pytest.mark.helm]


def test_the_api_server_finds_no_mistake_in_the_expressions(place: Tenant) -> None:
    """It checks their types against each kind; a wrong one would be refused only when somebody meets it."""
    policies = place.read("validatingadmissionpolicies", "--selector=app.kubernetes.io/part-of=perstack-orch")["items"]
    mine = [each for each in policies if f".{place.namespace}." in each["metadata"]["name"]]
    assert len(mine) == 10
    for each in mine:
        name = each["metadata"]["name"]
        place.until("jsonpath={.status.observedGeneration}=1", "validatingadmissionpolicy", name)
        found = place.read("validatingadmissionpolicy", name)
        assert found["status"].get("typeChecking", {}) == {}, name


def test_what_the_code_makes_is_taken(place: Tenant) -> None:
    """A Sandbox and its Pod, its network, and a coordinator and a reader of records with their Pods."""
    job, submitted = sandbox(place), completed(place)
    template = json.loads(place.read("configmap", FULLNAME)["data"]["job.json"])
    template["metadata"]["ownerReferences"] = submitted["metadata"]["ownerReferences"]
    reader = reader_job(template, "j-r1", naming.coordinator_labels("j", "u1", naming.READER), "u1")
    assert place.refusal(job, place.coordinator) == ""
    assert place.refusal(pod_of(job)) == ""
    assert place.refusal(network_policy(spec(), setting(place)), place.coordinator) == ""
    assert place.refusal(submitted, SUBMITTER) == ""
    assert place.refusal(pod_of(submitted)) == ""
    assert place.refusal(reader, SUBMITTER) == ""
    assert place.refusal(pod_of(reader)) == ""


def test_a_policy_is_about_its_own_namespace(place: Tenant) -> None:
    """Accounts of the same name elsewhere are others'."""
    pod = pod_of(sandbox(place))
    pod["metadata"]["namespace"] = "default"
    pod["spec"]["hostNetwork"] = True
    elsewhere = Tenant("default")
    assert "ValidatingAdmissionPolicy" not in elsewhere.refusal(pod)


NETWORK: dict[str, tuple[Change, str]] = {
    "everybody": (put("spec.podSelector", {}), "lets the Sandboxes of one job"),
    "all Sandboxes": (put("spec.podSelector.matchLabels", {naming.MANAGED_BY: "perstack-orch"}), "lets the Sandboxes"),
    "everywhere": (put("spec.egress", [{}]), "lets the Sandboxes"),
    "every port": (put("spec.egress.0.ports", []), "lets the Sandboxes"),
    "outside": (put("spec.egress.0.to", [{"ipBlock": {"cidr": "0.0.0.0/0"}}]), "lets the Sandboxes"),
    "every Pod": (put("spec.egress.0.to", [{"podSelector": {}}]), "lets the Sandboxes"),
    "other namespaces": (put("spec.egress.0.to.0.namespaceSelector", {}), "lets the Sandboxes"),
    "from everywhere": (put("spec.ingress", [{}]), "lets the Sandboxes"),
}


@cases(OTHERS | NETWORK)
def test_no_network_that_a_coordinator_makes_is(place: Tenant, change: Change, words: str) -> None:
    """Policies add up, so it could open what the chart closes."""
    policy = network_policy(spec(), setting(place))
    change(policy)
    assert words in place.refusal(policy, place.coordinator)


def service() -> Manifest:
    """The Service in front of a broker."""
    metadata = {"name": "j-c1", "labels": naming.job_labels("j")}
    selector = {"batch.kubernetes.io/controller-uid": "e7a4ba4c-6f02-4a4b-b7f1-4d8a3e0a2b51"}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata,
        "spec": {"type": "ClusterIP", "selector": selector, "ports": [{"port": 7443}]},
    }


@cases(
    OTHERS
    | {
        "from outside": (put("spec.type", "NodePort"), "from inside the cluster"),
        "an address of another": (put("spec.externalIPs", ["198.51.100.7"]), "from inside the cluster"),
        "to others": (put("spec.selector", {"app": "web"}), "leads to coordinators"),
    }
)
def test_no_service_that_a_coordinator_makes_is(place: Tenant, change: Change, words: str) -> None:
    """It is for Sandboxes, and leads to whoever makes it."""
    right = service()
    assert place.refusal(right, place.coordinator) == ""
    change(right)
    assert words in place.refusal(right, place.coordinator)


def test_a_coordinator_deletes_sandboxes_and_nothing_else(place: Tenant) -> None:
    """Neither another coordinator's Job nor one that has nothing to do with us."""
    ours, others = sandbox(place), sandbox(place)
    ours["spec"]["suspend"] = others["spec"]["suspend"] = True
    for each in (ours, others):
        del each["metadata"]["ownerReferences"]
    others["metadata"] = {"name": "others", "labels": naming.job_labels("j")}
    others["spec"]["template"]["spec"]["serviceAccountName"] = "default"
    unlabelled = copy.deepcopy(others)
    unlabelled["metadata"] = {"name": "unlabelled", "labels": {"app": "web"}}
    place.make(ours, others, unlabelled)

    def deleted(name: str) -> str:
        return place.kubectl("delete", "job", name, "--dry-run=server", user=place.coordinator).stderr

    assert deleted("j-s1") == ""
    assert "a coordinator deletes Sandboxes, not other Jobs" in deleted("others")
    assert "writes only objects labelled" in deleted("unlabelled")
