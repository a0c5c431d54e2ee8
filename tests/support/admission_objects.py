"""Objects that the chart's policies admit, as the code makes them, and ways to make them wrong."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.backends.cluster_settings import Claim, ClusterSetting, Owner, PodSetting
from orchestrator.backends.kubernetes.manifest import kube_job
from orchestrator.sandbox import naming
from orchestrator.sandbox.api import BrokerAddress, SandboxSpec, User
from orchestrator.version import VERSION
from tests.support.chart import FULLNAME, Manifest
from tests.support.tenant import SUBMITTER, Tenant

RUNTIME = f"perstack-orch-runtime:{VERSION}"
ROOT = Path("/claim")
VALUES = {
    "submitters": [
        {"kind": "User", "name": SUBMITTER, "apiGroup": "rbac.authorization.k8s.io"},
        {"kind": "Group", "name": "runners", "apiGroup": "rbac.authorization.k8s.io"},
        {"kind": "ServiceAccount", "name": "ci"},
    ],
    "envSecret": "provider",
    "skillSecret": "skills",
    "provider": {"baseUrls": ["https://gateway.example/v1"], "headers": ["X-Team"]},
    "config": "# experts",
    "runs": {"daily": {"expertKey": "one", "schedule": "0 6 * * *", "suspend": True}},
    "admissionPolicy": {"envSecrets": ["second"], "runtimeImagePrefixes": ["registry.example/ours/"]},
    "image": {"pullSecrets": ["pull"]},
    "caBundle": {"configMap": "roots"},
    "sandbox": {"outside": ["192.0.2.9:80"]},
    "proxy": {"url": "http://proxy.example:3128", "noProxy": ["it's", 'a"<&>b\\']},
}
Change = Callable[[Manifest], Any]
"""Changes an object in place, which was right before."""


def setting(place: Tenant) -> ClusterSetting:
    """Describe how a coordinator of this tenant runs Sandboxes."""
    return ClusterSetting(
        namespace=place.namespace,
        claim=Claim("u1", ROOT),
        hosts=("192.0.2.2",),
        coordinator=Owner("j-c1", "e7a4ba4c-6f02-4a4b-b7f1-4d8a3e0a2b51"),
        pod=PodSetting(service_account_name=f"{FULLNAME}-sandbox", image_pull_secrets=("pull",), queue_name="queue"),
    )


def spec() -> SandboxSpec:
    """Describe a Sandbox that has all that a Sandbox can have."""
    return SandboxSpec(
        name="j-s1",
        image=RUNTIME,
        workspace=ROOT / "ws",
        state=ROOT / "state" / "j" / "1",
        user=User(65532, 65532),
        deadline=1_800_003_600,
        labels=naming.labels("j", sandbox="j-s1", instance="i", deadline=1_800_003_600),
        read_only=(Path("perstack.toml"),),
        hidden=(Path(".env"),),
        packages=ROOT / "packages",
        broker=BrokerAddress(("192.0.2.2",), 7443, 7444, "ab" * 32),
    )


def sandbox(place: Tenant) -> Manifest:
    """Give the Job of a Sandbox, as the code makes it."""
    return kube_job(spec(), setting(place), 1_800_000_000)


def pod_of(job: Manifest, **labels: str) -> Manifest:
    """Give the Pod that the cluster makes of a Job."""
    template = copy.deepcopy(job["spec"]["template"])
    metadata = template["metadata"] | {"name": "p"}
    metadata["labels"] |= {"batch.kubernetes.io/job-name": job["metadata"]["name"], **labels}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}


def completed(place: Tenant) -> Manifest:
    """Return the Job of a coordinator, as a submitter completes the chart's template."""
    installed = place.read("configmap", FULLNAME)
    job: Manifest = json.loads(installed["data"]["job.json"])
    labels = naming.job_labels("j") | naming.claim_labels("u1")
    for part in (job, job["spec"]["template"]):
        part["metadata"]["labels"] |= labels
    job["metadata"] |= {"name": "j-c1"}
    job["metadata"]["ownerReferences"][0]["uid"] = installed["metadata"]["uid"]
    affinity = job["spec"]["template"]["spec"]["affinity"]["podAffinity"]
    (term,) = affinity["requiredDuringSchedulingIgnoredDuringExecution"]
    term["labelSelector"]["matchLabels"] = naming.claim_labels("u1")
    volumes = {volume["name"]: volume for volume in job["spec"]["template"]["spec"]["volumes"]}
    volumes["claim"]["persistentVolumeClaim"]["claimName"] = "u1"
    volumes["job"]["secret"]["secretName"] = "j-c1"
    return job


def put(path: str, value: Any) -> Change:
    """Set the value at a dotted path; a number is an index, and missing parts are created."""

    def change(found: Any) -> None:
        *above, last = path.split(".")
        for part in above:
            found = found[int(part)] if _is_index(part) else found.setdefault(part, {})
        found[int(last) if _is_index(last) else last] = value

    return change


def add(path: str, value: Any) -> Change:
    """Append to the list at a dotted path."""

    def change(found: Any) -> None:
        *above, last = path.split(".")
        for part in above:
            found = found[int(part)] if _is_index(part) else found[part]
        found.setdefault(last, []).append(value)

    return change


def _is_index(part: str) -> bool:
    return part.removeprefix("-").isdigit()


def secret(name: str) -> Manifest:
    """A volume of a Secret."""
    return {"name": "more", "secret": {"secretName": name}}


def mounted(**mount: Any) -> Change:
    """Mount the claim a second time."""
    return add("containers.0.volumeMounts", {"name": "claim", "mountPath": "/more", **mount})


def token(audience: str) -> Manifest:
    """A volume of a token."""
    return {"name": "more", "projected": {"sources": [{"serviceAccountToken": {"audience": audience, "path": "t"}}]}}


def variables_of(name: str, prefix: str) -> Manifest:
    """All variables of a Secret, their names behind a prefix."""
    return {"prefix": prefix, "secretRef": {"name": name}}


def from_secret(name: str) -> Manifest:
    """A variable that is in a Secret."""
    return {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": name, "key": "KEY"}}}


MORE = {"name": "more", "image": RUNTIME}
PRIVILEGE = "run without root, privileges and capabilities"
HOST = "the host's network, processes and memory"
ONE = "has one container"
IS_PULLED = "pulled with image.pullSecrets"

BOTH: dict[str, tuple[Change, str]] = {
    "host network": (put("hostNetwork", value=True), HOST),
    "host processes": (put("hostPID", value=True), HOST),
    "host memory": (put("hostIPC", value=True), HOST),
    "a second container": (add("containers", MORE), ONE),
    "an init container": (add("initContainers", MORE), ONE),
    "root": (put("securityContext.runAsNonRoot", value=False), PRIVILEGE),
    "more privileges": (put("containers.0.securityContext.allowPrivilegeEscalation", value=True), PRIVILEGE),
    "left to the default": (put("containers.0.securityContext", {}), PRIVILEGE),
    "a capability": (put("containers.0.securityContext.capabilities.add", ["NET_ADMIN"]), PRIVILEGE),
    "capabilities kept": (put("containers.0.securityContext.capabilities.drop", []), PRIVILEGE),
    "writable root": (put("containers.0.securityContext.readOnlyRootFilesystem", value=False), PRIVILEGE),
    "the account's token": (
        put("automountServiceAccountToken", value=True),
        "must be false",
    ),
    "another pull secret": (put("imagePullSecrets", [{"name": "other"}]), IS_PULLED),
    "a path of the host": (add("volumes", {"name": "more", "hostPath": {"path": "/"}}), "no path of the host"),
}
"""What no Pod of ours may be."""

OTHERS: dict[str, tuple[Change, str]] = {
    "no label": (put("metadata.labels", {}), "writes only objects labelled"),
    "another's": (put("metadata.labels", {naming.MANAGED_BY: "Helm", naming.JOB: "j"}), "writes only objects labelled"),
}


def cases(table: dict[str, tuple[Change, str]]) -> pytest.MarkDecorator:
    """Have a test for each line of a table."""
    return pytest.mark.parametrize(("change", "words"), table.values(), ids=table.keys())
