"""What the chart makes, for tests: labels and settings that all of its objects share, and the Pods in them."""

from collections.abc import Iterator

from orchestrator.version import VERSION
from tests.support.chart import RELEASE, Manifest, told

LABELS = {
    "helm.sh/chart": f"perstack-orch-{VERSION}",
    "app.kubernetes.io/name": "perstack-orch",
    "app.kubernetes.io/instance": RELEASE,
    "app.kubernetes.io/version": VERSION,
    "app.kubernetes.io/part-of": "perstack-orch",
}
OURS = {
    "app.kubernetes.io/managed-by": "perstack-orch",
    "app.kubernetes.io/instance": RELEASE,
    "perstack.ai/part": "coordinator",
}
UNDISTURBED = {
    "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
    "karpenter.sh/do-not-disrupt": "true",
    "sidecar.istio.io/inject": "false",
    "linkerd.io/inject": "disabled",
}
NOT_ROOT = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
USER = {"runAsUser": 65532, "runAsGroup": 65532, "fsGroup": 65532, "fsGroupChangePolicy": "OnRootMismatch"}
HARDENED = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "privileged": False,
    "capabilities": {"drop": ["ALL"]},
}
ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
DIGEST = f"sha256:{'ab' * 32}"
RUN = {"config": "# experts", "runs": {"one": {"expertKey": "fitness-assistant", "query": "go"}}}
DAILY = {"config": "# experts", "runs": {"daily": {"expertKey": "boss", "user": "u1", "schedule": "0 6 * * *"}}}
IDS = ["u1", "Alice@example.com", "--", "../../etc", "a" * 90, "ünï", "日本", "user.with.dots and spaces", "A", "1-2-3"]


def pods_of(objects: list[Manifest]) -> Iterator[tuple[str, Manifest]]:
    """Give all templates of Pods, the one of job.json too, by the names of what has them."""
    for each in [*objects, told(objects, "job.json")]:
        name, spec = each["metadata"].get("name", "job.json"), each.get("spec", {})
        match each["kind"]:
            case "Pod":
                yield name, each
            case "Job":
                yield name, spec["template"]
            case "CronJob":
                yield name, spec["jobTemplate"]["spec"]["template"]


def coordinator(objects: list[Manifest]) -> Manifest:
    """Give the spec of the coordinators' Pods that the command line makes."""
    spec: Manifest = told(objects, "job.json")["spec"]["template"]["spec"]
    return spec
