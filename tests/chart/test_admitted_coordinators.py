"""What a coordinator may be, and what a submitter may create, where the chart's policies are in force."""

import json

import pytest

from orchestrator.backends.cluster_settings import Owner
from orchestrator.cluster.coordinator_manifest import job_secret
from orchestrator.cluster.job_request import PROVIDER_PREFIX, SKILL_PREFIX
from orchestrator.sandbox.naming import JOB, MANAGED_BY, coordinator_labels
from tests.support.admission_objects import (
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

WHOLE = "mounts each volume whole and at the chart's path"
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
    "something else as a separate volume": (
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
        f"its own {name}": (add("containers.0.env", {"name": name, "value": "/claim/ws"}), "has only the variables")
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
    "any header in addition to the provider's key": (put("containers.0.env.-1.value", "X-Team X-Forward-To"), AS_GIVEN),
    "other certificates": (put("containers.0.env.-3.value", "/job/ca.crt"), AS_GIVEN),
    "other settings of Sandboxes": (put("containers.0.env.1.value", "/job/pods.json"), AS_GIVEN),
    "a proxy of theirs": (add("containers.0.env", {"name": "HTTPS_PROXY", "value": "http://theirs.example"}), AS_GIVEN),
    "a variable less": (lambda pod: pod["containers"][0]["env"].pop(), AS_GIVEN),
}


@cases(BOTH | COORDINATOR | OF_A_SUBMITTER)
def test_a_wrong_coordinator_of_a_submitter_is_refused(place: Tenant, change: Change, words: str) -> None:
    """The API server refuses it, since its account is for one program with the Secret of one job."""
    job = completed(place)
    change(job["spec"]["template"]["spec"])
    assert words in place.refusal(job, SUBMITTER)


@cases(BOTH | COORDINATOR)
def test_a_wrong_pod_with_a_coordinator_s_account_is_refused(place: Tenant, change: Change, words: str) -> None:
    """The API server refuses it, whichever account creates the Pod."""
    pod = pod_of(completed(place))
    change(pod["spec"])
    assert words in place.refusal(pod)


@pytest.mark.parametrize("kind", ["User", "Group", "ServiceAccount"])
def test_a_submitter_creates_nothing_but_coordinators(place: Tenant, kind: str) -> None:
    """Otherwise a Pod of a submitter could read any Secret of the namespace; other accounts may create any Job."""
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
    """The names may come from --env-secret."""
    job = completed(place)
    given = [variables_of(secret_name, PROVIDER_PREFIX), variables_of("skills", SKILL_PREFIX)]
    put("containers.0.envFrom", given)(job["spec"]["template"]["spec"])
    assert place.refusal(job, SUBMITTER) == ""


@pytest.mark.parametrize("name", ["provider", "second", "skills", f"{FULLNAME}-daily"])
def test_a_submitter_s_coordinator_is_not_called_like_what_it_must_not_read(place: Tenant, name: str) -> None:
    """A coordinator reads the Secret of its own name; this would be an operator's Secret, or that of a chart's run."""
    job = completed(place)
    job["metadata"]["name"] = name
    volumes = job["spec"]["template"]["spec"]["volumes"]
    next(volume for volume in volumes if volume["name"] == "job")["secret"]["secretName"] = name
    assert "must not have the name of an operator's Secret" in place.refusal(job, SUBMITTER)
    assert place.refusal(job) == ""


def test_a_schedule_s_job_has_the_schedule_s_secret_and_a_submitter_s_has_not(place: Tenant) -> None:
    """A CronJob names its Jobs after itself; a submitter who gave a Job such a name would read another's Secret."""
    job = completed(place)
    job["metadata"]["name"] = "nightly-29384710"
    volumes = job["spec"]["template"]["spec"]["volumes"]
    next(volume for volume in volumes if volume["name"] == "job")["secret"]["secretName"] = "nightly"
    assert place.refusal(job) == ""
    assert place.refusal(pod_of(job)) == ""
    assert "the Secret of its own job" in place.refusal(job, SUBMITTER)


def test_a_coordinator_that_is_replaced_after_an_upgrade_keeps_its_variables(place: Tenant) -> None:
    """They are those of the chart version that started the job; the policy still checks which variables it has."""
    pod = pod_of(completed(place))
    put("containers.0.env.0.value", "perstack-orch-runtime:0.0.9")(pod["spec"])
    put("containers.0.envFrom", [{"secretRef": {"name": "provider"}}])(pod["spec"])
    assert place.refusal(pod) == ""


SECRET: dict[str, tuple[Change, str]] = {
    "any account's token": (put("type", "kubernetes.io/service-account-token"), "creates only Secrets of jobs"),
    "no label": (put("metadata.labels", {}), "labelled app.kubernetes.io/managed-by"),
    "another's label": (
        put("metadata.labels", {MANAGED_BY: "Helm", JOB: "j"}),
        "labelled app.kubernetes.io/managed-by",
    ),
    "what all coordinators take": (put("metadata.name", "provider"), "must not create a Secret that envSecret"),
    "what skills may be given": (
        put("metadata.name", "skills"),
        "must not create a Secret that envSecret, skillSecret",
    ),
    "what some coordinators take": (put("metadata.name", "second"), "must not create a Secret that envSecret"),
}


@cases(SECRET)
def test_a_wrong_secret_of_a_submitter_is_refused(place: Tenant, change: Change, words: str) -> None:
    """The cluster would put another account's token into it, or coordinators would take variables from it."""
    made = job_secret("j-c1", coordinator_labels("j", "u1"), {"request.json": b"{}"}, Owner("j-c1", "uid"))
    made["metadata"]["annotations"] = {"kubernetes.io/service-account.name": f"{FULLNAME}-coordinator"}
    assert place.refusal(made, SUBMITTER) == ""
    change(made)
    assert words in place.refusal(made, SUBMITTER)
    assert place.refusal(made) == ""
