"""What a coordinator may be, and what a submitter may create, to an API server with the chart's policies."""

import json

import pytest

from orchestrator.backends.kubernetes_coordinator import job_secret
from orchestrator.backends.kubernetes_setting import Owner
from orchestrator.backends.naming import JOB, MANAGED_BY, coordinator_labels
from orchestrator.wire.job_request import PROVIDER_PREFIX, SKILL_PREFIX
from tests.support.admitted import (
    BOTH,
    RUNTIME,
    Change,
    add,
    cases,
    completed,
    from_secret,
    mounted,
    pod_of,
    put,
    secret,
    variables_of,
)
from tests.support.chart import FULLNAME
from tests.support.tenant import SUBMITTER, Tenant

pytestmark = [pytest.mark.kubernetes, pytest.mark.helm]

WHOLE = "mounts each volume whole and where the chart has it"
AS_GIVEN = "has the variables of the chart"
COORDINATOR: dict[str, tuple[Change, str]] = {
    "the runtime's image": (put("containers.0.image", RUNTIME), "begins with perstack-orch: or perstack-orch@"),
    "another program": (put("containers.0.command", ["/bin/sh"]), "and no other program"),
    "the image's own program": (lambda pod: pod["containers"][0].pop("command"), "and no other program"),
    "another command": (put("containers.0.args", ["shell", "--backend", "process"]), "and no other program"),
    "a reader's command": (put("containers.0.args", ["tell"]), "and no other program"),
    "a program at its end": (
        put("containers.0.lifecycle", {"preStop": {"exec": {"command": ["true"]}}}),
        "and no other program",
    ),
    "a program to probe it": (
        put("containers.0.startupProbe", {"exec": {"command": ["true"]}}),
        "and no other program",
    ),
    "another job's secret": (add("volumes", secret("j-c2")), "the Secret of its own job"),
    "the keys as files": (add("volumes", secret("provider")), "the Secret of its own job"),
    "another config map": (add("volumes", {"name": "more", "configMap": {"name": "own"}}), "what the chart gives it"),
    "a projected secret": (
        add("volumes.-1.projected.sources", {"secret": {"name": "provider"}}),
        "hold its token and the cluster's certificate",
    ),
    "something else as a volume of its own": (
        put("volumes.2", {"name": "installation", "persistentVolumeClaim": {"claimName": "u1"}}),
        "what the chart gives it",
    ),
    "a part of the claim where programs are": (mounted(subPath="ws/bin", mountPath="/opt/perstack/bin"), WHOLE),
    "a part of the claim in the claim's place": (put("containers.0.volumeMounts.0.subPath", "ws"), WHOLE),
    "a part that a variable names": (put("containers.0.volumeMounts.0.subPathExpr", "$(HOME)"), WHOLE),
    "the claim where programs are": (put("containers.0.volumeMounts.0.mountPath", "/opt/perstack/bin"), WHOLE),
    "a directory of the claim to begin in": (put("containers.0.workingDir", "/claim/ws"), "and no other program"),
    "variables of another": (put("containers.0.envFrom", [{"secretRef": {"name": "j-c2"}}]), "takes variables from no"),
    "the provider's variables as a skill's": (
        put("containers.0.envFrom", [variables_of("provider", SKILL_PREFIX)]),
        "takes variables from no",
    ),
    "the provider's variables under names of one's own": (
        put("containers.0.envFrom", [variables_of("provider", "MY_")]),
        "takes variables from no",
    ),
    "another's variables as a skill's": (
        put("containers.0.envFrom", [variables_of("j-c2", SKILL_PREFIX)]),
        "takes variables from no",
    ),
    "a variable of another": (add("containers.0.env", from_secret("provider")), "takes variables from no"),
    "a config map's variables": (
        put("containers.0.envFrom", [{"configMapRef": {"name": "own"}}]),
        "takes variables from no",
    ),
    **{
        f"{name} of its own": (add("containers.0.env", {"name": name, "value": "/claim/ws"}), "no variables but those")
        for name in ("PATH", "LD_PRELOAD", "PYTHONPATH", "HOME", "PERSTACK_STORAGE")
    },
}
OF_A_SUBMITTER: dict[str, tuple[Change, str]] = {
    "an older version, which knew less": (
        put("containers.0.image", "perstack-orch:0.0.1"),
        "runs the image of job.json",
    ),
    "the provider's variables as its own": (
        put("containers.0.envFrom", [variables_of("provider", "")]),
        "takes variables from no",
    ),
    "any address for the provider's key": (put("containers.0.env.-2.value", "*"), AS_GIVEN),
    "any header beside the provider's key": (put("containers.0.env.-1.value", "X-Team X-Forward-To"), AS_GIVEN),
    "other certificates": (put("containers.0.env.-3.value", "/job/ca.crt"), AS_GIVEN),
    "other settings of Sandboxes": (put("containers.0.env.1.value", "/job/pods.json"), AS_GIVEN),
    "a proxy of theirs": (add("containers.0.env", {"name": "HTTPS_PROXY", "value": "http://theirs.example"}), AS_GIVEN),
    "a variable less": (lambda pod: pod["containers"][0]["env"].pop(), AS_GIVEN),
}


@cases(BOTH | COORDINATOR | OF_A_SUBMITTER)
def test_no_coordinator_of_a_submitter_is(place: Tenant, change: Change, words: str) -> None:
    """Its account is for one program, with one job's Secret."""
    job = completed(place)
    change(job["spec"]["template"]["spec"])
    assert words in place.refusal(job, SUBMITTER)


@cases(BOTH | COORDINATOR)
def test_no_pod_with_a_coordinator_s_account_is(place: Tenant, change: Change, words: str) -> None:
    """Whoever makes it."""
    pod = pod_of(completed(place))
    change(pod["spec"])
    assert words in place.refusal(pod)


@pytest.mark.parametrize("kind", ["User", "Group", "ServiceAccount"])
def test_a_submitter_creates_nothing_but_coordinators(place: Tenant, kind: str) -> None:
    """Else any Secret of the namespace could be read by a Pod of their own; the others are not kept from anything."""
    template = {
        "restartPolicy": "Never",
        "containers": [{"name": "main", "image": "busybox", "envFrom": [{"secretRef": {"name": "provider"}}]}],
    }
    metadata = {"name": "theirs"}
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": {"template": {"spec": template}}}
    who = {
        "User": ["--as=sally"],
        "Group": ["--as=bob", "--as-group=runners"],
        "ServiceAccount": [f"--as=system:serviceaccount:{place.namespace}:ci"],
    }[kind]
    made = place.kubectl("create", "--dry-run=server", "--filename=-", *who, stdin=json.dumps(job))
    assert "a submitter creates nothing but coordinators" in made.stderr
    assert place.refusal(job) == ""


@pytest.mark.parametrize("secret_name", ["second", "provider"])
def test_a_submitter_may_name_the_keys_that_values_name(place: Tenant, secret_name: str) -> None:
    """With --env-secret."""
    job = completed(place)
    given = [variables_of(secret_name, PROVIDER_PREFIX), variables_of("skills", SKILL_PREFIX)]
    put("containers.0.envFrom", given)(job["spec"]["template"]["spec"])
    assert place.refusal(job, SUBMITTER) == ""


@pytest.mark.parametrize("name", ["provider", "second", "skills", f"{FULLNAME}-daily"])
def test_a_submitter_s_coordinator_is_not_called_like_what_it_must_not_read(place: Tenant, name: str) -> None:
    """Its job's Secret is the one of its name: an operator's own, or that of a run of the chart."""
    job = completed(place)
    job["metadata"]["name"] = name
    volumes = job["spec"]["template"]["spec"]["volumes"]
    next(volume for volume in volumes if volume["name"] == "job")["secret"]["secretName"] = name
    assert "not called like a Secret of the operator's" in place.refusal(job, SUBMITTER)
    assert place.refusal(job) == ""


def test_a_schedule_s_job_has_the_schedule_s_secret_and_a_submitter_s_has_not(place: Tenant) -> None:
    """A Job that a CronJob makes is named after it; a submitter who calls a Job so would read what is not theirs."""
    job = completed(place)
    job["metadata"]["name"] = "nightly-29384710"
    volumes = job["spec"]["template"]["spec"]["volumes"]
    next(volume for volume in volumes if volume["name"] == "job")["secret"]["secretName"] = "nightly"
    assert place.refusal(job) == ""
    assert place.refusal(pod_of(job)) == ""
    assert "the Secret of its own job" in place.refusal(job, SUBMITTER)


def test_a_coordinator_that_is_replaced_after_an_upgrade_keeps_its_variables(place: Tenant) -> None:
    """They are those of the chart that its job began with; which variables it has is judged all the same."""
    pod = pod_of(completed(place))
    put("containers.0.env.0.value", "perstack-orch-runtime:0.0.9")(pod["spec"])
    put("containers.0.envFrom", [{"secretRef": {"name": "provider"}}])(pod["spec"])
    assert place.refusal(pod) == ""


SECRET: dict[str, tuple[Change, str]] = {
    "any account's token": (put("type", "kubernetes.io/service-account-token"), "makes Opaque Secrets"),
    "no label": (put("metadata.labels", {}), "labelled app.kubernetes.io/managed-by"),
    "another's label": (
        put("metadata.labels", {MANAGED_BY: "Helm", JOB: "j"}),
        "labelled app.kubernetes.io/managed-by",
    ),
    "what all coordinators take": (put("metadata.name", "provider"), "does not say what is in envSecret"),
    "what skills may be given": (put("metadata.name", "skills"), "does not say what is in envSecret, skillSecret"),
    "what some coordinators take": (put("metadata.name", "second"), "does not say what is in envSecret"),
}


@cases(SECRET)
def test_no_secret_of_a_submitter_is(place: Tenant, change: Change, words: str) -> None:
    """The cluster would put another account's token into it, or coordinators take variables from it."""
    made = job_secret("j-c1", coordinator_labels("j", "u1"), {"request.json": b"{}"}, Owner("j-c1", "uid"))
    made["metadata"]["annotations"] = {"kubernetes.io/service-account.name": f"{FULLNAME}-coordinator"}
    assert place.refusal(made, SUBMITTER) == ""
    change(made)
    assert words in place.refusal(made, SUBMITTER)
    assert place.refusal(made) == ""
