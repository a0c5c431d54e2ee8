"""What a Sandbox may be where the chart's policies are in force: they admit what is right, and refuse each mistake."""

import pytest

from orchestrator.sandbox import naming
from tests.support.admission_objects import (
    BOTH,
    Change,
    add,
    cases,
    from_secret,
    mounted,
    pod_of,
    put,
    sandbox,
    secret,
    token,
)
from tests.support.chart import FULLNAME
from tests.support.tenant import Tenant

pytestmark = [pytest.mark.kubernetes, pytest.mark.helm]

PARTS = "of a claim a Sandbox mounts ws, packages or something below state"
SANDBOX: dict[str, tuple[Change, str]] = {
    "another image": (put("containers.0.image", "evil.example/perstack-orch-runtime:1"), "begins with"),
    "an image of a longer name": (put("containers.0.image", "perstack-orch-runtime-evil:1"), "begins with"),
    "the image, on another port": (put("containers.0.image", "perstack-orch-runtime"), "begins with"),
    "a secret": (add("volumes", secret("provider")), "no Secret"),
    "a config map": (add("volumes", {"name": "more", "configMap": {"name": FULLNAME}}), "no ConfigMap"),
    "a disk of a cloud": (add("volumes", {"name": "more", "nfs": {"server": "a", "path": "/"}}), "mounts parts of a"),
    "a projected secret": (
        add("volumes", {"name": "more", "projected": {"sources": [{"secret": {"name": "provider"}}]}}),
        "the only token that a Sandbox mounts",
    ),
    "a token of the api server": (add("volumes", token("")), "the only token that a Sandbox mounts"),
    "a token of another": (add("volumes", token("vault")), "the only token that a Sandbox mounts"),
    "a variable from a secret": (add("containers.0.env", from_secret("provider")), "takes no variable"),
    "variables from a secret": (add("containers.0.envFrom", {"secretRef": {"name": "provider"}}), "takes no variable"),
    "the claim's root": (mounted(), PARTS),
    "records": (mounted(subPath="records"), PARTS),
    "all users' state": (mounted(subPath="state"), PARTS),
    "something like its workspace": (mounted(subPath="ws2"), PARTS),
    "a path that is not known": (mounted(subPathExpr="$(NODE_IPS)"), PARTS),
}


@pytest.mark.parametrize(
    "change",
    [
        put("containers.0.image", f"perstack-orch-runtime@sha256:{'ab' * 32}"),
        put("containers.0.image", "registry.example/ours/runtime:1"),
        put("runtimeClassName", "gvisor"),
        mounted(subPath="packages/npm"),
        mounted(subPath="ws/deep/down"),
    ],
    ids=["a digest", "a prefix that was added", "a runtime class", "packages", "a file of the workspace"],
)
def test_another_right_sandbox_is_admitted(place: Tenant, change: Change) -> None:
    """The policies admit what an operator or a job may choose."""
    job = sandbox(place)
    change(job["spec"]["template"]["spec"])
    # The API server may still refuse a RuntimeClass that does not exist.
    assert "ValidatingAdmissionPolicy" not in place.refusal(job, place.coordinator)


@cases(BOTH | SANDBOX)
def test_a_wrong_sandbox_of_a_coordinator_is_refused(place: Tenant, change: Change, words: str) -> None:
    """A coordinator's right to create Jobs covers Sandboxes only."""
    job = sandbox(place)
    change(job["spec"]["template"]["spec"])
    assert words in place.refusal(job, place.coordinator)


@cases(BOTH | SANDBOX)
def test_a_wrong_pod_with_a_sandbox_s_account_is_refused(place: Tenant, change: Change, words: str) -> None:
    """The API server refuses it whichever account creates it: controllers create Pods under their own accounts."""
    pod = pod_of(sandbox(place))
    change(pod["spec"])
    assert words in place.refusal(pod)


@pytest.mark.parametrize("account", ["default", f"{FULLNAME}-other"])
def test_a_coordinator_gives_sandboxes_no_other_account(place: Tenant, account: str) -> None:
    """A Sandbox must not get the rights of that account."""
    job = sandbox(place)
    job["spec"]["template"]["spec"]["serviceAccountName"] = account
    assert f"runs as the account {FULLNAME}-sandbox, which may do nothing" in place.refusal(job, place.coordinator)


def test_a_sandbox_never_has_the_coordinator_s_account(place: Tenant) -> None:
    """Two policies refuse it, and the API server chooses which of them it reports."""
    job = sandbox(place)
    job["spec"]["template"]["spec"]["serviceAccountName"] = f"{FULLNAME}-coordinator"
    assert "denied request" in place.refusal(job, place.coordinator)


@pytest.mark.parametrize("label", [naming.MANAGED_BY, naming.JOB, naming.SANDBOX, naming.INSTANCE, naming.DEADLINE])
def test_a_sandbox_has_all_labels(place: Tenant, label: str) -> None:
    """Job and Pod have them, since the policies and garbage collection recognize a Sandbox by its labels."""
    for where in (("metadata",), ("spec", "template", "metadata")):
        job = sandbox(place)
        found = job
        for part in where:
            found = found[part]
        del found["labels"][label]
        assert "labelled app.kubernetes.io/managed-by" in place.refusal(job, place.coordinator), where
