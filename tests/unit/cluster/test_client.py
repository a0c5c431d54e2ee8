"""The names of users' claims, and the coordinators of a job."""

from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from orchestrator.backends.cluster_settings import Claim, ClusterSetting
from orchestrator.backends.kubernetes.client import selector
from orchestrator.cluster.client import ClusterClient, claim_of, instance_on, unnamed_job_id
from orchestrator.cluster.installation import Installation
from orchestrator.errors import ConfigError
from orchestrator.plan.make_job import instance_of
from orchestrator.sandbox.naming import PART, claim_labels, coordinator_labels
from tests.support.api_server import Object, serving


def test_no_two_users_share_a_claim() -> None:
    """Ids that differ in case, or in cut or replaced characters, get different claims, also from the default one."""
    users = ("u1", "U1", "u-1", "u_1", "default", "perstack-default", "x" * 300, "x" * 301, "ü")
    names = {claim_of(user) for user in (None, *users)}
    assert len(names) == len(users) + 1
    assert claim_of(None) == "default"
    assert all(len(name) <= 253 and name.replace("-", "").isalnum() for name in names)


@pytest.mark.parametrize("user", ["", "a\nb", "\ud800"])
def test_an_unreadable_id_is_refused(user: str) -> None:
    """An id that cannot be printed is refused: it could not be stored with the claim."""
    with pytest.raises(ConfigError, match="give the id of a user"):
        claim_of(user)


def test_a_laptop_knows_the_instance_of_a_coordinator(tmp_path: Path) -> None:
    """Sandboxes have the same instance from inside and outside the cluster."""
    setting = ClusterSetting("agents", Claim("c", tmp_path), ())
    assert instance_on("agents", "c") == instance_of(tmp_path / "records", setting)


async def test_coordinators_that_a_chart_made_are_found_too() -> None:
    """A submitted job has its id in a label; for one of Helm or a schedule it is derived from the Job's uid."""
    own = coordinator_labels("j", claim_of("u1"))
    made = {"app.kubernetes.io/managed-by": "Helm", PART: "coordinator"} | claim_labels(claim_of("u1"))
    found = {
        "ours": own,
        "the chart's": made,
        "another user's": coordinator_labels("j", claim_of("u2")),
        "a reader": own | {PART: "reader"},
    }

    async def answer(_method: str, target: str, _body: bytes) -> tuple[int, Object]:
        wanted = parse_qs(urlsplit(target).query)["labelSelector"][0].split(",")
        items = [
            {"metadata": {"name": name, "uid": name, "creationTimestamp": "2026-01-01T00:00:00Z", "labels": labels}}
            for name, labels in found.items()
            if set(wanted) <= set(selector(labels).split(","))
        ]
        return 200, {"items": items}

    async with serving(answer) as api:
        place = ClusterClient(api, Installation("r", "n", {}, {}), "u1", ())
        jobs = {job_id: await place.coordinators(job_id) for job_id in ("j", unnamed_job_id("the chart's"), "other")}
    names = {job_id: [job["metadata"]["name"] for job in listed] for job_id, listed in jobs.items()}
    assert names == {"j": ["ours"], unnamed_job_id("the chart's"): ["the chart's"], "other": []}
