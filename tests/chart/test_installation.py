"""What the chart installs, as whole objects, and what values it refuses; `helm template` needs no cluster."""

import json

import msgspec
import pytest
from msgspec.json import Decoder

from orchestrator.backends.cluster_settings import PodSetting
from orchestrator.backends.kubernetes.preflight import COORDINATOR, SUBMITTER
from orchestrator.wire.frozen import read_json
from tests.support.chart import CHART, FULLNAME, NAMESPACE, Manifest, helm, merged, one, refusal, render, told
from tests.support.chart_rendering import (
    DAILY,
    HARDENED,
    LABELS,
    NOT_ROOT,
    RUN,
    pods_of,
)

pytestmark = pytest.mark.helm


def test_what_is_installed() -> None:
    """Nothing else is installed: no PodDisruptionBudget, which a Job cannot have, and no ClusterRole."""
    policies = ["ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"]
    rules = ["coordinator-jobs", "coordinator-pods", "sandbox-jobs", "sandbox-pods", "submitted-secrets"]
    rules += [f"written-{kind}" for kind in ("jobs", "leases", "networkpolicies", "secrets", "services")]
    assert {(each["kind"], each["metadata"]["name"]) for each in render()} == {
        ("ConfigMap", FULLNAME),
        ("ServiceAccount", f"{FULLNAME}-coordinator"),
        ("ServiceAccount", f"{FULLNAME}-sandbox"),
        ("Role", f"{FULLNAME}-coordinator"),
        ("RoleBinding", f"{FULLNAME}-coordinator"),
        ("Role", f"{FULLNAME}-submitter"),
        ("NetworkPolicy", f"{FULLNAME}-coordinator"),
        ("NetworkPolicy", f"{FULLNAME}-reader"),
        ("NetworkPolicy", f"{FULLNAME}-sandbox"),
        ("Pod", f"{FULLNAME}-test-network"),
        ("Pod", f"{FULLNAME}-test-rights"),
        *((kind, f"{FULLNAME}.{NAMESPACE}.{rule}") for kind in policies for rule in rules),
    }


def test_everything_is_labelled_and_in_the_namespace() -> None:
    """A search for a release by label finds all its objects; Helm removes the tests itself."""
    objects = [each for each in render(merged(RUN, DAILY)) if each["kind"] != "Pod"]
    assert [each for each in objects if LABELS.items() - each["metadata"]["labels"].items()] == []
    of_the_cluster = {"ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"}
    assert {each["metadata"].get("namespace") for each in objects if each["kind"] not in of_the_cluster} == {NAMESPACE}


def test_accounts_mount_no_token() -> None:
    """The Sandbox's account also has no rights."""
    objects = render(RUN)
    metadata = {"namespace": NAMESPACE, "labels": LABELS}
    assert [each for each in objects if each["kind"] == "ServiceAccount"] == [
        {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": metadata | {"name": f"{FULLNAME}-{whose}"},
            "automountServiceAccountToken": False,
        }
        for whose in ("coordinator", "sandbox")
    ]
    bound = [subject["name"] for each in objects if each["kind"] == "RoleBinding" for subject in each["subjects"]]
    assert bound == [f"{FULLNAME}-coordinator"]


@pytest.mark.parametrize(("who", "needed"), [("coordinator", COORDINATOR), ("submitter", SUBMITTER)])
def test_each_may_do_what_its_code_uses(who: str, needed: dict[tuple[str, str], tuple[str, ...]]) -> None:
    """The Roles grant what the code lists, which another test compares with the API server's log; no Secret is read."""
    rules = one(render(), "Role", f"{FULLNAME}-{who}")["rules"]
    granted = {(rule["apiGroups"][0], rule["resources"][0]): tuple(rule["verbs"]) for rule in rules}
    assert granted == needed
    assert len(rules) == len(granted)
    assert [rule for rule in rules if len(rule["apiGroups"]) + len(rule["resources"]) > 2] == []


def test_submitters_are_bound_as_they_are_named() -> None:
    """Users, groups and service accounts have the submitter's Role alone."""
    subjects = [{"kind": "Group", "name": "agents-team", "apiGroup": "rbac.authorization.k8s.io"}]
    assert one(render({"submitters": subjects}), "RoleBinding", f"{FULLNAME}-submitter") == {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": f"{FULLNAME}-submitter", "namespace": NAMESPACE, "labels": LABELS},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": f"{FULLNAME}-submitter"},
        "subjects": subjects,
    }


def test_what_sandboxes_are_given() -> None:
    """The orchestrator reads every setting that an operator can make for them, under names that it knows."""
    sandbox = {
        "resourceClass": "large",
        "runtimeClassName": "gvisor",
        "priorityClassName": "agents",
        "nodeSelector": {"pool": "agents"},
        "tolerations": [{"key": "pool", "operator": "Exists"}],
        "annotations": {"team": "a"},
        "labels": {"team": "b"},
        "queueName": "agents",
        "userNamespace": True,
    }
    values = {"sandbox": sandbox, "image": {"pullSecrets": ["pull"]}, "openshift": True}
    pods = told(render(values), "pods.json")
    assert pods.keys() <= {field.encode_name for field in msgspec.structs.fields(PodSetting)}
    assert read_json(Decoder(PodSetting), json.dumps(pods).encode()) == PodSetting(
        service_account_name=f"{FULLNAME}-sandbox",
        image_pull_secrets=("pull",),
        runtime_class_name="gvisor",
        priority_class_name="agents",
        node_selector={"pool": "agents"},
        tolerations=({"key": "pool", "operator": "Exists"},),
        annotations={"team": "a"},
        labels={"team": "b"},
        queue_name="agents",
        memory="8Gi",
        cpu="4",
        cpu_request="500m",
        storage="10Gi",
        any_user=True,
        one_node=True,
        user_namespace=True,
    )


def test_what_sandboxes_are_given_by_default() -> None:
    """They get an account without rights, and the resources of the class `medium`."""
    assert told(render(), "pods.json") == {
        "serviceAccountName": f"{FULLNAME}-sandbox",
        "memory": "2Gi",
        "cpu": "2",
        "cpuRequest": "100m",
        "storage": "2Gi",
        "anyUser": False,
        "oneNode": True,
        "userNamespace": False,
    }


def test_a_user_s_claim() -> None:
    """It is as the values define it, and its labels mark it as the claim of a workspace."""
    workspaces = {"accessMode": "ReadWriteMany", "storageClass": "nfs", "size": "3Gi", "annotations": {"backup": "yes"}}
    assert told(render({"workspaces": workspaces}), "claim.json") == {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {
            "labels": {"app.kubernetes.io/managed-by": "perstack-orch", "perstack.ai/part": "workspace"},
            "annotations": {"backup": "yes"},
        },
        "spec": {
            "accessModes": ["ReadWriteMany"],
            "storageClassName": "nfs",
            "resources": {"requests": {"storage": "3Gi"}},
        },
    }


def test_openshift_chooses_users() -> None:
    """No Pod has a number of a user; all other restrictions stay."""
    objects = render(merged(RUN, DAILY, {"openshift": True}))
    assert [pod["spec"]["securityContext"] for _, pod in pods_of(objects)] == [NOT_ROOT] * 5


def test_a_queue_is_for_sandboxes_alone() -> None:
    """A coordinator with the quota would wait for Sandboxes that the quota blocks; no Sandbox is prewarmed."""
    objects = render(merged(DAILY, {"sandbox": {"queueName": "agents"}}))
    assert [each for each in objects if "kueue" in json.dumps(each)] == []
    assert told(objects, "pods.json")["queueName"] == "agents"
    secret = one(objects, "Secret", f"{FULLNAME}-daily")["stringData"]
    assert json.loads(secret["request.json"])["prewarm"] == "off"


def test_every_pod_is_restricted() -> None:
    """Each Pod of the chart, tests included, meets Pod Security's level `restricted`, and more."""
    for name, pod in pods_of(render(merged(RUN, DAILY))):
        spec = pod["spec"]
        assert spec["automountServiceAccountToken"] is False, name
        assert NOT_ROOT.items() <= spec["securityContext"].items(), name
        assert spec["securityContext"]["runAsUser"] == 65532, name
        assert [each["securityContext"] for each in spec["containers"]] == [HARDENED], name
        assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers"} & spec.keys(), name
        assert not [volume for volume in spec.get("volumes", []) if "hostPath" in volume], name


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"sandboxes": {}}, "additional properties 'sandboxes' not allowed"),
        ({"sandbox": {"runtimeClass": "gvisor"}}, "additional properties 'runtimeClass' not allowed"),
        ({"workspaces": {"accessMode": "ReadWriteOncePod"}}, "value must be one of"),
        ({"workspaces": {"size": "ten"}}, "/workspaces/size"),
        ({"image": {"runtime": {"digest": "latest"}}}, "/image/runtime/digest"),
        ({"sandbox": {"outside": ["example.com:443"]}}, "/sandbox/outside/0"),
        ({"networkPolicy": {"apiServerCIDRs": ["192.0.2.1"]}}, "/networkPolicy/apiServerCIDRs/0"),
        ({"submitters": [{"kind": "User"}]}, "missing property 'name'"),
        ({"submitters": [{"kind": "User", "name": "o'neill"}]}, "/submitters/0/name"),
        (
            {"sandbox": {"resourceClass": "huge"}},
            'sandbox.resourceClass is "huge", which',
        ),
        ({"runs": {"one": {"expertKey": "boss"}}}, "config is empty: runs need a perstack.toml"),
        ({"config": "c", "runs": {"one": {}}}, "missing property 'expertKey'"),
        ({"config": "c", "runs": {"One Run": {"expertKey": "boss"}}}, "additional properties 'One Run' not allowed"),
        ({"fullnameOverride": "a" * 31}, "/fullnameOverride"),
    ],
)
def test_what_cannot_be_is_refused_by_name(values: Manifest, words: str) -> None:
    """The chart refuses them before anything is installed."""
    assert words in refusal(values)


@pytest.mark.parametrize("values", [{}, merged(RUN, DAILY)], ids=["bare", "with runs"])
def test_helm_lint_has_nothing_to_say(values: Manifest) -> None:
    """It reports nothing, also with warnings as errors."""
    done = helm("lint", "--strict", str(CHART), "--values=-", stdin=json.dumps(values))
    assert done.returncode == 0, done.stdout


def test_policies_and_network_can_be_left_to_others() -> None:
    """An operator may lack rights for objects of the whole cluster, or have other network policies."""
    without = render({"networkPolicy": {"enabled": False}, "admissionPolicy": {"enabled": False}})
    kinds = {each["kind"] for each in without}
    assert kinds == {"ConfigMap", "ServiceAccount", "Role", "RoleBinding", "Pod"}
    assert [each["metadata"]["name"] for each in without if each["kind"] == "Pod"] == [f"{FULLNAME}-test-rights"]
