"""Releases in a real cluster: what `helm test` reports, and that an upgrade or uninstall leaves nothing running."""

import json
from collections.abc import Iterator

import pytest

from tests.support import chart
from tests.support.admission_objects import completed
from tests.support.chart import FULLNAME, RELEASE, Manifest, helm, merged
from tests.support.cluster import allow_dns
from tests.support.tenant import Tenant, tenant

pytestmark = [pytest.mark.kubernetes, pytest.mark.helm]


@pytest.fixture(scope="module")
def place() -> Iterator[Tenant]:
    """A tenant whose images are those of this checkout."""
    with tenant(chart.images()) as made:
        yield made


def outcome_of(place: Tenant, name: str) -> tuple[int, str]:
    """Run one of the release's tests; return its exit code and its output."""
    test = f"{FULLNAME}-test-{name}"
    done = helm("test", RELEASE, f"--namespace={place.namespace}", f"--filter=name={test}", "--timeout=90s")
    said = place.kubectl("logs", test).stdout
    place.kubectl("delete", "pod", test, "--ignore-not-found")
    return done.returncode, said


def test_helm_test_passes(place: Tenant) -> None:
    """It passes in a cluster that keeps Sandboxes from the network, with no bindings but the chart's."""
    done = helm("test", RELEASE, f"--namespace={place.namespace}", "--timeout=90s")
    assert done.returncode == 0, done.stderr
    phases = [line.split()[-1] for line in done.stdout.splitlines() if line.startswith("Phase:")]
    assert phases == ["Succeeded", "Succeeded"]


def test_helm_test_reports_an_open_network(place: Tenant) -> None:
    """Another policy opens the network of Sandboxes."""
    wide = {"podSelector": {}, "policyTypes": ["Egress"], "egress": [{}]}
    policy = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "wide"}, "spec": wide}
    place.make(policy)
    try:
        code, said = outcome_of(place, "network")
    finally:
        place.kubectl("delete", "networkpolicy", "wide")
    assert code == 1
    assert "this cluster does not enforce NetworkPolicies" in said


@pytest.mark.parametrize("protocols", [("UDP",), ("TCP",), ("UDP", "TCP")])
def test_helm_test_reports_names_that_are_resolved(place: Tenant, protocols: tuple[str, ...]) -> None:
    """Another policy, common in namespaces, lets all Pods resolve names, so every job would be refused."""
    try:
        place.make(allow_dns(*protocols))
        code, said = outcome_of(place, "network")
    finally:
        place.kubectl("delete", "networkpolicy", "allow-dns")
    assert code == 1
    assert "10.96.0.10 port 53 (DNS)" in said
    assert "one of them allows it" in said


@pytest.mark.parametrize(
    ("verbs", "words"),
    [(["get"], "may get secrets"), (["*"], "may * secrets")],
)
def test_helm_test_reports_a_right_too_many(place: Tenant, verbs: list[str], words: str) -> None:
    """An operator bound the coordinator's account to more than the chart's Role."""
    role: Manifest = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": {"name": "more"},
        "rules": [{"apiGroups": [""], "resources": ["secrets"], "verbs": verbs}],
    }
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "more"}
    subject = {"kind": "ServiceAccount", "name": f"{FULLNAME}-coordinator"}
    binding = role | {"kind": "RoleBinding", "roleRef": reference, "subjects": [subject]}
    del binding["rules"]
    place.make(role, binding)
    try:
        code, said = outcome_of(place, "rights")
    finally:
        place.kubectl("delete", "rolebinding,role", "more")
    assert code == 1
    assert f"the coordinator's account {words} in the namespace {place.namespace}" in said


def test_helm_test_reports_a_right_too_few(place: Tenant) -> None:
    """An operator removed a verb from its Role."""
    role = place.read("role", f"{FULLNAME}-coordinator")
    (jobs,) = [rule for rule in role["rules"] if rule["resources"] == ["jobs"]]
    jobs["verbs"].remove("watch")
    place.kubectl("replace", "--filename=-", stdin=json.dumps(role))
    try:
        code, said = outcome_of(place, "rights")
    finally:
        chart.upgrade(place.namespace, chart.images())
    assert code == 1
    assert "the coordinator's account may not watch jobs" in said


def test_the_notes_say_what_to_do_next(place: Tenant) -> None:
    """They name the next commands, and what is not as safe as it could be."""
    notes = chart.upgrade(place.namespace, chart.images())
    assert f"helm test r --namespace {place.namespace}" in notes
    assert f'perstack-orch run --backend kubernetes --namespace {place.namespace} --user u1 EXPERT "QUERY"' in notes
    assert "WARNING" not in notes
    told = chart.upgrade(place.namespace, merged(chart.images(), {"admissionPolicy": {"enabled": False}}))
    assert "WARNING: admissionPolicy.enabled is false" in told
    chart.upgrade(place.namespace, chart.images())


def test_uninstalling_removes_every_job_and_leaves_users_files() -> None:
    """The release owns a submitted job, whichever account created it; it does not own claims."""
    run = {"expertKey": "boss", "schedule": "0 6 * * *", "user": "u1"}
    with tenant(merged(chart.images(), {"config": "c", "runs": {"daily": run}})) as made:
        claims = {f"PersistentVolumeClaim {each['metadata']['name']}" for each in made.read("pvc")["items"]}
        job = completed(made)
        job["spec"]["suspend"] = True
        made.make(job)
        assert {"Job j-c1", *claims} < made.everything()
        assert helm("uninstall", RELEASE, f"--namespace={made.namespace}", "--wait").returncode == 0
        made.until("delete", "job/j-c1")
        assert made.everything() == claims
        policies = made.read("validatingadmissionpolicies,validatingadmissionpolicybindings")["items"]
        assert [each for each in policies if made.namespace in each["metadata"]["name"]] == []


def test_installing_again_finds_users_claims() -> None:
    """A release of another name finds them too, and leaves a claim that the command line made as it is."""
    run = {"expertKey": "boss", "schedule": "0 6 * * *"}
    values = merged(chart.images(), {"config": "c", "runs": {"daily": run}})
    with tenant(values) as made:
        before = made.read("pvc", "default")["metadata"]["uid"]
        assert helm("uninstall", RELEASE, f"--namespace={made.namespace}").returncode == 0
        for name in (RELEASE, "another"):
            with chart.release(made.namespace, values, name):
                chart.upgrade(made.namespace, values, name)
            assert made.read("pvc", "default")["metadata"]["uid"] == before


def test_an_upgrade_replaces_a_run_that_changed_and_no_other() -> None:
    """The Job of the old values is deleted with its Secret; an unchanged run keeps its Job."""
    runs = {name: {"expertKey": "boss", "query": "go", "user": name} for name in ("same", "other")}
    values = merged(chart.images(), {"config": "c", "runs": runs, "coordinator": {"nodeSelector": {"no": "node"}}})
    with tenant(values) as made:
        before = {each["metadata"]["name"]: each["metadata"]["uid"] for each in made.read("jobs")["items"]}
        chart.upgrade(made.namespace, merged(values, {"runs": {"other": {"query": "else"}}}))
        after = {each["metadata"]["name"]: each["metadata"]["uid"] for each in made.read("jobs")["items"]}
        assert len(before) == len(after) == 2
        (kept,) = before.items() & after.items()
        assert kept[0].startswith(f"{FULLNAME}-same-")
        secrets = {each["metadata"]["name"] for each in made.read("secrets", "--field-selector=type=Opaque")["items"]}
        assert secrets == after.keys()
