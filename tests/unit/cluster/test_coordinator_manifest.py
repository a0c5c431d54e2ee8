"""The manifests of a job in a cluster."""

import copy
from collections.abc import Callable
from typing import Any

import pytest

from orchestrator.backends.cluster_settings import Owner
from orchestrator.cluster.coordinator_manifest import (
    broker_service,
    claim_manifest,
    coordinator_job,
    job_secret,
    reader_job,
)
from orchestrator.cluster.job_request import PROVIDER_PREFIX, SKILL_PREFIX
from orchestrator.errors import ConfigError
from orchestrator.sandbox.naming import READER, coordinator_labels, coordinator_name, lease_name, reader_name

OWNER = Owner("j-c1", "uid-1")
OWNED = {
    "apiVersion": "batch/v1",
    "kind": "Job",
    "name": "j-c1",
    "uid": "uid-1",
    "controller": False,
    "blockOwnerDeletion": False,
}
LABELS = coordinator_labels("j", "c")
TEMPLATE: dict[str, Any] = {
    "apiVersion": "batch/v1",
    "kind": "Job",
    "metadata": {"labels": {"app.kubernetes.io/instance": "release"}},
    "spec": {
        "backoffLimit": 6,
        "podFailurePolicy": {"rules": []},
        "ttlSecondsAfterFinished": 86400,
        "template": {
            "metadata": {"annotations": {"a": "b"}},
            "spec": {
                "serviceAccountName": "coordinator",
                "containers": [
                    {
                        "name": "coordinator",
                        "image": "orchestrator:1",
                        "envFrom": [
                            {"prefix": PROVIDER_PREFIX, "secretRef": {"name": "keys"}},
                            {"prefix": SKILL_PREFIX, "secretRef": {"name": "skills"}},
                        ],
                        "volumeMounts": [
                            {"name": "claim", "mountPath": "/claim"},
                            {"name": "job", "mountPath": "/job"},
                            {"name": "account", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"},
                            {"name": "tmp", "mountPath": "/tmp"},
                        ],
                    }
                ],
                "volumes": [
                    {"name": "claim", "persistentVolumeClaim": {"claimName": ""}},
                    {"name": "job", "secret": {"secretName": "", "defaultMode": 288}},
                    {"name": "account", "projected": {"sources": []}},
                    {"name": "tmp", "emptyDir": {}},
                ],
            },
        },
    },
}


def test_a_coordinator_s_job_is_the_template_with_its_names() -> None:
    """Name, labels, claim, Secret and command are filled in; the template stays unchanged."""
    before = copy.deepcopy(TEMPLATE)
    expected = copy.deepcopy(TEMPLATE)
    expected["metadata"] = {"name": "j-c1", "labels": {"app.kubernetes.io/instance": "release"} | LABELS}
    template = expected["spec"]["template"]
    template["metadata"]["labels"] = LABELS
    template["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"] = "c"
    template["spec"]["volumes"][1]["secret"]["secretName"] = "j-c1"
    template["spec"]["containers"][0] |= {"command": ["perstack-orch"], "args": ["coordinate"]}
    assert coordinator_job(TEMPLATE, "j-c1", LABELS, "c") == expected
    template["spec"]["containers"][0]["envFrom"][0]["secretRef"]["name"] = "own"
    assert coordinator_job(TEMPLATE, "j-c1", LABELS, "c", "own") == expected
    assert before == TEMPLATE


@pytest.mark.parametrize("made", [coordinator_job, reader_job])
def test_only_the_pods_of_one_claim_share_a_node(made: Callable[..., dict[str, Any]]) -> None:
    """The claim's name is filled in; other affinity terms of the chart stay."""

    def beside(claim: str) -> dict[str, Any]:
        ours = {"topologyKey": "node", "labelSelector": {"matchLabels": {"perstack.ai/claim": claim}}}
        others: list[dict[str, Any]] = [{"labelSelector": {"matchLabels": {"app": "x"}}}, {"matchLabelKeys": ["y"]}]
        return {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [ours, *others]}}

    template = copy.deepcopy(TEMPLATE)
    template["spec"]["template"]["spec"]["affinity"] = beside("")
    job = made(template, "j-c1", LABELS, "c")
    assert job["spec"]["template"]["spec"]["affinity"] == beside("c")
    assert template["spec"]["template"]["spec"]["affinity"] == beside("")


def test_a_reader_has_neither_secrets_nor_rights_and_writes_nothing() -> None:
    """A reader has no Secret, token or provider key; its claim is read-only, and it ends and is removed on its own."""
    labels = coordinator_labels("j", "c", READER)
    made = reader_job(TEMPLATE, "j-rabc", labels, "c")
    pod = made["spec"]["template"]["spec"]
    assert made["metadata"] == {"name": "j-rabc", "labels": {"app.kubernetes.io/instance": "release"} | labels}
    assert {key: value for key, value in made["spec"].items() if key != "template"} == {
        "backoffLimit": 0,
        "activeDeadlineSeconds": 3600,
        "ttlSecondsAfterFinished": 60,
    }
    assert pod == {
        "serviceAccountName": "coordinator",
        "automountServiceAccountToken": False,
        "containers": [
            {
                "name": "coordinator",
                "image": "orchestrator:1",
                "command": ["perstack-orch"],
                "args": ["tell"],
                "volumeMounts": [
                    {"name": "claim", "mountPath": "/claim", "readOnly": True},
                    {"name": "tmp", "mountPath": "/tmp"},
                ],
            }
        ],
        "volumes": [
            {"name": "claim", "persistentVolumeClaim": {"claimName": "c", "readOnly": True}},
            {"name": "tmp", "emptyDir": {}},
        ],
    }


def test_a_template_of_another_version_is_refused() -> None:
    """The message names what is missing and the remedy."""
    template = copy.deepcopy(TEMPLATE)
    template["spec"]["template"]["spec"]["volumes"].pop(1)
    with pytest.raises(ConfigError, match="has no volume 'job'; upgrade the chart"):
        coordinator_job(template, "j-c1", LABELS, "c")


def test_the_secret_goes_with_its_job() -> None:
    """The Secret is owned by the Job, and is not larger than a Secret may be."""
    assert job_secret("j-c1", LABELS, {"request.json": b"{}"}, OWNER) == {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "j-c1", "labels": LABELS, "ownerReferences": [OWNED]},
        "type": "Opaque",
        "data": {"request.json": "e30="},
    }
    with pytest.raises(ConfigError, match="have 1048577 bytes; a Secret of the cluster holds at most 1048576"):
        job_secret("j-c1", LABELS, {"perstack.toml": b"x" * 1048577}, OWNER)


def test_the_service_leads_to_the_pods_of_one_job() -> None:
    """The Service has both ports, in each available address family."""
    assert broker_service("j-c1", LABELS, (7443, 7444), OWNER) == {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "j-c1", "labels": LABELS, "ownerReferences": [OWNED]},
        "spec": {
            "type": "ClusterIP",
            "ipFamilyPolicy": "PreferDualStack",
            "selector": {"batch.kubernetes.io/controller-uid": "uid-1"},
            "ports": [
                {"name": "broker", "port": 7443, "targetPort": 7443, "protocol": "TCP"},
                {"name": "forbidden", "port": 7444, "targetPort": 7444, "protocol": "TCP"},
            ],
        },
    }


def test_a_claim_is_the_template_with_its_owner() -> None:
    """Labels and annotations of the template are kept."""
    template = {"metadata": {"labels": {"x": "y"}, "annotations": {"keep": "yes"}}, "spec": {"size": 1}}
    assert claim_manifest(template, "u1", {"l": "m"}, {"perstack.ai/user": "u1"}) == {
        "metadata": {
            "name": "u1",
            "labels": {"x": "y", "l": "m"},
            "annotations": {"keep": "yes", "perstack.ai/user": "u1"},
        },
        "spec": {"size": 1},
    }


@pytest.mark.parametrize("job", ["j", "a" * 63, "looks-like-0123456789abcdef", "twentyfourlowercaseabcde"])
def test_names_are_labels_and_differ_between_instances(job: str) -> None:
    """Each name is a DNS-1123 label, and equal job ids of two users get different names."""
    for name in (coordinator_name(job, 999, "i"), reader_name(job, "0a1b2c", "i"), lease_name(job, "i")):
        assert len(name) <= 63
    if len(job) != 24:
        assert coordinator_name(job, 1, "i") != coordinator_name(job, 1, "other")
