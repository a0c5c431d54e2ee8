"""Jobs and CronJobs of the chart's own runs."""

import json

import pytest
from msgspec.json import Decoder

from orchestrator.cluster.client import claim_of
from orchestrator.cluster.job_request import BASE_URLS, JobRequest
from orchestrator.providers.destinations import ANY
from orchestrator.sandbox.naming import CLAIM, claim_labels
from orchestrator.wire.frozen import read_json
from tests.support.chart import FULLNAME, NAMESPACE, Manifest, merged, one, render, told
from tests.support.chart_rendering import (
    DAILY,
    IDS,
    LABELS,
    OURS,
    RUN,
    pods_of,
)

pytestmark = pytest.mark.helm


def test_a_run_without_a_schedule_is_a_job() -> None:
    """It is the coordinator that the command line makes, with its claim and Secret; the Secret holds the request."""
    objects = render(RUN)
    (job,) = [each for each in objects if each["kind"] == "Job"]
    name = job["metadata"]["name"]
    template = told(objects, "job.json")["spec"]
    labels = template["template"]["metadata"]["labels"] | {"perstack.ai/claim": "default"}
    spec = json.loads(json.dumps(template).replace('"claimName": ""', '"claimName": "default"'))
    spec = json.loads(json.dumps(spec).replace('"secretName": ""', f'"secretName": "{name}"'))
    spec["template"]["metadata"]["labels"] = labels
    # The operator wrote its config, so it may set the provider's address.
    spec["template"]["spec"]["containers"][0]["env"].append({"name": BASE_URLS, "value": ANY})
    (term,) = spec["template"]["spec"]["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert term["labelSelector"] == {"matchLabels": {"perstack.ai/claim": ""}}
    term["labelSelector"]["matchLabels"]["perstack.ai/claim"] = "default"
    del spec["ttlSecondsAfterFinished"]
    assert job["spec"] == spec
    assert job["metadata"]["labels"] == LABELS | {"perstack.ai/part": "coordinator", "perstack.ai/claim": "default"}
    assert one(objects, "Secret", name)["stringData"] == {
        "perstack.toml": "# experts",
        "request.json": '{"expertKey":"fitness-assistant","query":"go"}',
        "env.json": "{}",
    }
    assert one(objects, "PersistentVolumeClaim", "default")["metadata"]["annotations"] == {
        "helm.sh/resource-policy": "keep"
    }


def test_a_run_with_a_schedule_is_a_cron_job() -> None:
    """Its Jobs have our labels and a time after which they are deleted; the next one does not start while one runs."""
    objects = render(DAILY)
    name, claim = f"{FULLNAME}-daily", claim_of("u1")
    spec = one(objects, "CronJob", name)["spec"]
    assert {key: value for key, value in spec.items() if key != "jobTemplate"} == {
        "schedule": "0 6 * * *",
        "suspend": False,
        "concurrencyPolicy": "Forbid",
        "startingDeadlineSeconds": 600,
    }
    job = spec["jobTemplate"]
    assert job["metadata"] == {"labels": OURS | {"perstack.ai/claim": claim}}
    assert job["spec"]["ttlSecondsAfterFinished"] == 86400
    pod = job["spec"]["template"]
    assert pod["metadata"]["labels"]["perstack.ai/claim"] == claim
    assert pod["spec"]["volumes"][:2] == [
        {"name": "claim", "persistentVolumeClaim": {"claimName": claim}},
        {"name": "job", "secret": {"secretName": name, "defaultMode": 0o440}},
    ]
    assert one(objects, "PersistentVolumeClaim", claim)["metadata"] == {
        "name": claim,
        "namespace": NAMESPACE,
        "labels": LABELS | {"app.kubernetes.io/managed-by": "perstack-orch", "perstack.ai/part": "workspace"},
        "annotations": {"helm.sh/resource-policy": "keep", "perstack.ai/user": "u1"},
    }


def test_a_run_s_request_has_all_that_it_was_given() -> None:
    """A coordinator can read it; the request names variables, and the Secret has their values in separate keys."""
    run = {
        "expertKey": "boss",
        "query": "go",
        "user": "u1",
        "env": {"B": "2", "A": "1"},
        "request": {"maxSteps": 20, "allowDomain": ["web=example.com"]},
    }
    files = {"config": "c", "lock": "l", "replies": "{}", "runs": {"one": run}}
    (secret,) = [each for each in render(files) if each["kind"] == "Secret"]
    data = secret["stringData"]
    assert read_json(Decoder(JobRequest), data.pop("request.json").encode()) == JobRequest(
        expert_key="boss",
        query="go",
        user="u1",
        env=("A", "B"),
        max_steps=20,
        allow_domain=("web=example.com",),
    )
    assert json.loads(data.pop("env.json")) == {"A": "1", "B": "2"}
    assert data == {"perstack.toml": "c", "perstack.lock": "l", "replies.json": "{}"}


def test_a_job_that_changes_is_another_job() -> None:
    """Kubernetes does not allow a change of a Job; an unchanged one is not run again."""

    def name(*changes: Manifest) -> str:
        (job,) = [each for each in render(merged(RUN, *changes)) if each["kind"] == "Job"]
        told: str = job["metadata"]["name"]
        return told

    same = name()
    assert name({"submitters": [{"kind": "User", "name": "a"}]}) == same
    query, tag = {"one": {"query": "else"}}, {"orchestrator": {"tag": "9"}}
    changed: list[Manifest] = [{"runs": query}, {"config": "# others"}, {"image": tag}]
    assert len({same, *(name(each) for each in changed)}) == 4


def test_claims_are_named_as_the_command_line_names_them() -> None:
    """Otherwise a user's scheduled run would not find their files."""
    runs = {f"r{number}": {"expertKey": "boss", "user": user} for number, user in enumerate(IDS)}
    objects = render({"config": "c", "runs": runs})
    claims = {each["metadata"]["name"]: each for each in objects if each["kind"] == "PersistentVolumeClaim"}
    assert claims.keys() == {claim_of(user) for user in IDS}
    labelled = {
        (volume["persistentVolumeClaim"]["claimName"], pod["metadata"]["labels"][CLAIM])
        for name, pod in pods_of(objects)
        for volume in pod["spec"].get("volumes", [])
        if volume["name"] == "claim" and name != "job.json"
    }
    assert labelled == {(name, claim_labels(name)[CLAIM]) for name in claims}
    owners = {each["metadata"]["annotations"]["perstack.ai/user"] for each in claims.values()}
    assert owners == set(IDS)
