"""What a coordinator may write and delete in addition to Sandboxes, where the chart's policies are in force."""

import copy
import json

import pytest

from orchestrator.backends.kubernetes.manifest import network_policy
from orchestrator.cluster.coordinator_manifest import reader_job
from orchestrator.sandbox import naming
from tests.support.admission_objects import (
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
    """The API server checks their types against each kind; otherwise a wrong one fails only in a later request."""
    policies = place.read("validatingadmissionpolicies", "--selector=app.kubernetes.io/part-of=perstack-orch")["items"]
    mine = [each for each in policies if f".{place.namespace}." in each["metadata"]["name"]]
    assert len(mine) == 10
    for each in mine:
        name = each["metadata"]["name"]
        place.until("jsonpath={.status.observedGeneration}=1", "validatingadmissionpolicy", name)
        found = place.read("validatingadmissionpolicy", name)
        assert found["status"].get("typeChecking", {}) == {}, name


def test_what_the_code_makes_is_admitted(place: Tenant) -> None:
    """The policies admit a Sandbox, its Pod and network, and a coordinator and a reader of records with their Pods."""
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
    """Accounts of the same name in another namespace are not affected."""
    pod = pod_of(sandbox(place))
    pod["metadata"]["namespace"] = "default"
    pod["spec"]["hostNetwork"] = True
    elsewhere = Tenant("default")
    assert "ValidatingAdmissionPolicy" not in elsewhere.refusal(pod)


NETWORK: dict[str, tuple[Change, str]] = {
    "all Pods": (put("spec.podSelector", {}), "lets the Sandboxes of one job"),
    "all Sandboxes": (put("spec.podSelector.matchLabels", {naming.MANAGED_BY: "perstack-orch"}), "lets the Sandboxes"),
    "everywhere": (put("spec.egress", [{}]), "lets the Sandboxes"),
    "every port": (put("spec.egress.0.ports", []), "lets the Sandboxes"),
    "outside": (put("spec.egress.0.to", [{"ipBlock": {"cidr": "0.0.0.0/0"}}]), "lets the Sandboxes"),
    "every Pod": (put("spec.egress.0.to", [{"podSelector": {}}]), "lets the Sandboxes"),
    "other namespaces": (put("spec.egress.0.to.0.namespaceSelector", {}), "lets the Sandboxes"),
    "from everywhere": (put("spec.ingress", [{}]), "lets the Sandboxes"),
}


@cases(OTHERS | NETWORK)
def test_a_wrong_network_of_a_coordinator_is_refused(place: Tenant, change: Change, words: str) -> None:
    """Policies add up, so this one could open what the chart closes."""
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
def test_a_wrong_service_of_a_coordinator_is_refused(place: Tenant, change: Change, words: str) -> None:
    """A Service is for Sandboxes, and leads to the coordinator that creates it."""
    right = service()
    assert place.refusal(right, place.coordinator) == ""
    change(right)
    assert words in place.refusal(right, place.coordinator)


def test_a_coordinator_deletes_sandboxes_and_nothing_else(place: Tenant) -> None:
    """It may delete neither another coordinator's Job nor a Job of another application."""
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
