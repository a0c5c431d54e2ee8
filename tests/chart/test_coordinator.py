"""The coordinator's Job that the chart leaves for submitters."""

import pytest

from orchestrator.cluster.job_request import BASE_URLS, HEADERS, PROVIDER_PREFIX, SKILL_PREFIX
from orchestrator.providers.destinations import ANY
from orchestrator.version import VERSION
from tests.support.chart import FULLNAME, merged, refusal, render, told
from tests.support.chart_rendering import ACCOUNT, DIGEST, HARDENED, NOT_ROOT, OURS, RUN, UNDISTURBED, USER, coordinator

pytestmark = pytest.mark.helm


def test_the_job_of_a_coordinator() -> None:
    """The whole Job is as expected; fields of the submitter are empty, so the API server refuses a forgotten one."""
    container = {
        "name": "coordinator",
        "image": f"perstack-orch:{VERSION}",
        "imagePullPolicy": "IfNotPresent",
        "command": ["perstack-orch"],
        "args": ["coordinate"],
        "workingDir": "/",
        "env": [
            {"name": "PERSTACK_RUNTIME_IMAGE", "value": f"perstack-orch-runtime:{VERSION}"},
            {"name": "PERSTACK_POD_SETTING", "value": "/installation/pods.json"},
            {"name": "PERSTACK_BROKER_PORT", "value": "7443,7444"},
        ],
        "envFrom": [
            {"prefix": PROVIDER_PREFIX, "secretRef": {"name": "provider"}},
            {"prefix": SKILL_PREFIX, "secretRef": {"name": "skills"}},
        ],
        "resources": {
            "requests": {"cpu": "100m", "memory": "256Mi", "ephemeral-storage": "128Mi"},
            "limits": {"cpu": "1", "memory": "512Mi", "ephemeral-storage": "256Mi"},
        },
        "securityContext": HARDENED,
        "volumeMounts": [
            {"name": "claim", "mountPath": "/claim"},
            {"name": "job", "mountPath": "/job", "readOnly": True},
            {"name": "installation", "mountPath": "/installation", "readOnly": True},
            {"name": "tmp", "mountPath": "/tmp"},
            {"name": "account", "mountPath": ACCOUNT, "readOnly": True},
        ],
    }
    token = [
        {"serviceAccountToken": {"path": "token", "expirationSeconds": 3600}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]}},
    ]
    beside = {
        "topologyKey": "kubernetes.io/hostname",
        "labelSelector": {"matchLabels": {"perstack.ai/claim": ""}},
    }
    pod = {
        "restartPolicy": "Never",
        "serviceAccountName": f"{FULLNAME}-coordinator",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 30,
        "securityContext": NOT_ROOT | USER,
        "affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [beside]}},
        "containers": [container],
        "volumes": [
            {"name": "claim", "persistentVolumeClaim": {"claimName": ""}},
            {"name": "job", "secret": {"secretName": "", "defaultMode": 0o440}},
            {
                "name": "installation",
                "configMap": {"name": FULLNAME, "items": [{"key": "pods.json", "path": "pods.json"}]},
            },
            {"name": "tmp", "emptyDir": {"sizeLimit": "64Mi"}},
            {"name": "account", "projected": {"defaultMode": 0o440, "sources": token}},
        ],
    }
    owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": FULLNAME, "uid": ""}
    assert told(render({"envSecret": "provider", "skillSecret": "skills"}), "job.json") == {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"labels": OURS, "ownerReferences": [owner]},
        "spec": {
            "backoffLimit": 6,
            "podReplacementPolicy": "Failed",
            "podFailurePolicy": {
                "rules": [
                    {
                        "action": "FailJob",
                        "onExitCodes": {"containerName": "coordinator", "operator": "In", "values": [1, 2, 4]},
                    },
                    {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
                ]
            },
            "ttlSecondsAfterFinished": 86400,
            "template": {
                "metadata": {"labels": OURS | {"sidecar.istio.io/inject": "false"}, "annotations": UNDISTURBED},
                "spec": pod,
            },
        },
    }


def test_one_secret_is_not_both_the_provider_s_and_skills() -> None:
    """Otherwise submitters would get the provider's keys."""
    assert "envSecret and skillSecret name the same Secret" in refusal({"envSecret": "keys", "skillSecret": "keys"})


def test_where_a_submitted_file_may_send_the_key_and_one_of_the_operator_s() -> None:
    """A submitted file may name listed addresses only; a run of the chart has the operator's file and no limit."""
    listed = {"baseUrls": ["https://a.example/v1", "https://b.example"], "headers": ["X-Team"]}
    objects = render(merged({"provider": listed}, RUN))
    (run,) = [each["spec"]["template"]["spec"] for each in objects if each["kind"] == "Job"]
    said = [
        {each["name"]: each["value"] for each in spec["containers"][0]["env"] if each["name"] in {BASE_URLS, HEADERS}}
        for spec in (coordinator(objects), run)
    ]
    assert said == [{BASE_URLS: "https://a.example/v1 https://b.example", HEADERS: "X-Team"}, {BASE_URLS: ANY}]


@pytest.mark.parametrize("url", ["*", "gateway.example", "https://a b", "ftp://a.example"])
def test_an_address_that_is_allowed_is_whole(url: str) -> None:
    """It is neither a pattern nor a host, because it is compared with an address in a perstack.toml."""
    assert "provider.baseUrls" in refusal({"provider": {"baseUrls": [url]}}).replace("/", ".")


def test_a_claim_that_many_nodes_mount_needs_no_affinity() -> None:
    """Pods of one user then run on any node with room."""
    objects = render({"workspaces": {"accessMode": "ReadWriteMany"}})
    assert "affinity" not in coordinator(objects)
    assert told(objects, "pods.json")["oneNode"] is False


def test_images_by_registry_and_digest() -> None:
    """The registry applies to both images; a digest takes precedence over the tag."""
    image = {
        "registry": "registry.example/team/",
        "pullPolicy": "Always",
        "pullSecrets": ["pull"],
        "orchestrator": {"digest": DIGEST, "tag": "9"},
        "runtime": {"repository": "mine", "tag": "7"},
    }
    spec = coordinator(render({"image": image}))
    (container,) = spec["containers"]
    assert (container["image"], container["imagePullPolicy"], spec["imagePullSecrets"]) == (
        f"registry.example/team/perstack-orch@{DIGEST}",
        "Always",
        [{"name": "pull"}],
    )
    assert container["env"][0]["value"] == "registry.example/team/mine:7"


def test_where_and_how_coordinators_run() -> None:
    """Each setting is where Kubernetes expects it; additional labels and annotations do not replace ours."""
    placed = {
        "priorityClassName": "high",
        "nodeSelector": {"pool": "a"},
        "tolerations": [{"key": "pool", "operator": "Exists"}],
        "annotations": {"team": "a"},
        "labels": {"team": "b", "perstack.ai/part": "sandbox"},
        "keepSeconds": 600,
    }
    values = {"coordinator": placed, "caBundle": {"configMap": "roots", "key": "bundle.pem"}}
    job = told(render(values), "job.json")
    template = job["spec"]["template"]
    assert job["spec"]["ttlSecondsAfterFinished"] == 600
    assert template["metadata"] == {
        "labels": OURS | {"sidecar.istio.io/inject": "false", "team": "b"},
        "annotations": UNDISTURBED | {"team": "a"},
    }
    spec = template["spec"]
    assert {name: spec[name] for name in ("priorityClassName", "nodeSelector", "tolerations")} == {
        name: placed[name] for name in ("priorityClassName", "nodeSelector", "tolerations")
    }
    assert {"name": "SSL_CERT_FILE", "value": "/authorities/ca.crt"} in spec["containers"][0]["env"]
    mounted = {"name": "roots", "items": [{"key": "bundle.pem", "path": "ca.crt"}]}
    assert {"name": "authorities", "configMap": mounted} in spec["volumes"]
