"""Users' claims on storage that is not open to all users."""

import os

import pytest

from orchestrator.cluster.client import claim_of
from orchestrator.sandbox.naming import claim_labels
from orchestrator.wire.event import CompleteRun
from tests.support import cluster
from tests.support.cluster import Manifest
from tests.support.cluster_jobs import seen
from tests.support.production import RUN, Make, installed, objects, volume_of
from tests.support.project import ONE, TEAM, ask, say, use

pytestmark = [
    pytest.mark.kubernetes,
    pytest.mark.helm,
    pytest.mark.skipif(not cluster.is_ours(), reason="a cluster that was named has its own storage"),
]
UID = 65532


async def test_a_volume_that_is_root_s_is_refused_until_it_is_given_away(laptop: Make) -> None:
    """Many network file systems are: fsGroup changes nothing. The remedy in the error works."""
    made = laptop(ONE, {"one": [use(("writeTextFile", {"path": "mine", "text": "x"})), say("done")]})
    run = (*RUN, "--user", "rooted", "one", "go")
    with installed({"workspaces": {"storageClass": "root-only", "accessMode": "ReadWriteMany"}}):
        refused = await made.command(*run)
        assert (refused.code, refused.stdout) == (2, b""), refused.stderr
        *_, last = refused.stderr.splitlines()
        assert last == (
            f"perstack-orch: /claim/records cannot be created: Permission denied; user {UID}, who runs this"
            " command, must own the root of the volume at /claim: use a StorageClass that honors fsGroup, or run"
            f" `chown {UID} /claim` once as root"
        )
        os.chown(volume_of("rooted"), UID, -1)
        given = await made.command(*run)
    assert given.code == 0, given.stderr
    assert (volume_of("rooted") / "ws" / "mine").read_text() == "x"


def keeps_to_its_claim(pod: Manifest) -> bool:
    """Whether a Pod goes only where others of the claim are."""
    terms = pod["spec"].get("affinity", {}).get("podAffinity", {}).get("requiredDuringSchedulingIgnoredDuringExecution")
    ((claim, value),) = claim_labels(claim_of("disk")).items()
    asked = [
        {"key": claim, "operator": "In", "values": [value]} in term["labelSelector"].get("matchExpressions", ())
        or term["labelSelector"].get("matchLabels", {}).get(claim) == value
        for term in terms or ()
        if term["topologyKey"] == "kubernetes.io/hostname"
    ]
    return any(asked)


async def test_a_disk_of_one_node_serves_a_job_and_its_delegate(laptop: Make) -> None:
    """Coordinator and Sandboxes, warm ones too, ask for the node that has the claim's other Pods."""
    made = laptop(TEAM, {"boss": [use(ask("left", "go")), say("done")], "left": [say("left")]})
    with installed({"workspaces": {"storageClass": "one-node", "accessMode": "ReadWriteOnce"}}):
        async with seen("pods", within=objects()) as states:
            result = await made.command(*RUN, "--user", "disk", "--job-id", "disk", "boss", "go")
    assert result.code == 0, result.stderr
    assert [event.text for event in result.of(CompleteRun)] == ["left", "done"]
    claim = (await objects().read("pvc", claim_of("disk")))["spec"]
    assert (claim["accessModes"], claim["storageClassName"]) == (["ReadWriteOnce"], "one-node")
    pods = {
        pod["metadata"]["name"]: pod for pod in states if pod["metadata"]["labels"].get("perstack.ai/job") == "disk"
    }
    assert len(pods) >= 4
    assert [name for name, pod in pods.items() if not keeps_to_its_claim(pod)] == []
