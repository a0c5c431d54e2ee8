"""What a coordinator may be, and what a submitter may create, to an API server with the chart's policies."""

import json

import pytest

from tests.support.admitted import (
    BOTH,
    RUNTIME,
    Change,
    add,
    cases,
    completed,
    from_secret,
    pod_of,
    put,
    secret,
)
from tests.support.tenant import SUBMITTER, Tenant

pytestmark = [pytest.mark.kubernetes, pytest.mark.helm]

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
        add("volumes", {"name": "more", "projected": {"sources": [{"secret": {"name": "provider"}}]}}),
        "hold its token and the cluster's certificate",
    ),
    "variables of another": (put("containers.0.envFrom", [{"secretRef": {"name": "j-c2"}}]), "takes variables from no"),
    "a variable of another": (add("containers.0.env", from_secret("provider")), "takes variables from no"),
    "a config map's variables": (
        put("containers.0.envFrom", [{"configMapRef": {"name": "own"}}]),
        "takes variables from no",
    ),
}


@cases(BOTH | COORDINATOR)
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
    put("containers.0.envFrom", [{"secretRef": {"name": secret_name}}])(job["spec"]["template"]["spec"])
    assert place.refusal(job, SUBMITTER) == ""


def test_a_schedule_s_job_has_the_schedule_s_secret_and_a_submitter_s_has_not(place: Tenant) -> None:
    """A Job that a CronJob makes is named after it; a submitter who calls a Job so would read what is not theirs."""
    job = completed(place)
    job["metadata"]["name"] = "nightly-29384710"
    volumes = job["spec"]["template"]["spec"]["volumes"]
    next(volume for volume in volumes if volume["name"] == "job")["secret"]["secretName"] = "nightly"
    assert place.refusal(job) == ""
    assert place.refusal(pod_of(job)) == ""
    assert "the Secret of its own job" in place.refusal(job, SUBMITTER)
