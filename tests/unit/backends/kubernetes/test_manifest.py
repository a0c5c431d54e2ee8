from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.backends.cluster_settings import Claim, ClusterSetting, Owner, PodSetting
from orchestrator.backends.kubernetes.manifest import kube_job, mounted, network_policy, policy_name, policy_of
from orchestrator.errors import ConfigError
from orchestrator.sandbox.api import DEFAULT_LIMITS, MIB, BrokerAddress, SandboxSpec, User

ROOT = Path("/claim")
NOW = 1_800_000_000
LABELS = {
    "app.kubernetes.io/managed-by": "perstack-orch",
    "perstack.ai/job": "j",
    "perstack.ai/sandbox": "j-s1",
    "perstack.ai/instance": "i",
    "perstack.ai/deadline": "1800003600",
}
SETTING = ClusterSetting(
    namespace="agents",
    claim=Claim("u1", ROOT),
    hosts=("192.0.2.2", "fd00::2"),
    outside=("198.51.100.1:80", "[2001:db8::1]:443"),
)
SPEC = SandboxSpec(
    name="j-s1",
    image="registry.example/runtime@sha256:0123",
    workspace=ROOT / "ws",
    state=ROOT / "state" / "job" / "1",
    user=User(65532, 65533),
    deadline=NOW + 3600,
    limits=DEFAULT_LIMITS.with_(memory=256 * MIB, tmp=64 * MIB, cpus=1.5, pids=32, files=512),
    labels=LABELS,
    read_only=(Path("perstack.toml"),),
    hidden=(Path(".env"),),
    packages=ROOT / "packages",
    broker=BrokerAddress(("192.0.2.2", "fd00::2"), 7443, 7444, "ab" * 32),
)
POD_LABELS = LABELS | {"perstack.ai/claim": "u1"}
CLOSED = (
    "7444@192.0.2.2,fd00::2",
    "$(KUBERNETES_SERVICE_PORT)@$(KUBERNETES_SERVICE_HOST)",
    "10250@$(NODE_IPS)",
    "80@198.51.100.1",
    "443@2001:db8::1",
)
AWAY = [
    {
        "key": f"node.kubernetes.io/{what}",
        "operator": "Exists",
        "effect": "NoExecute",
        "tolerationSeconds": 120,
    }
    for what in ("not-ready", "unreachable")
]


def pod_of(job: dict[str, Any]) -> dict[str, Any]:
    """Return the Pod's spec in a Job."""
    spec: dict[str, Any] = job["spec"]["template"]["spec"]
    return spec


def test_the_whole_job() -> None:
    """The manifest holds everything that a Pod is given; a change of it changes the isolation."""
    limits = {"memory": "268435456", "cpu": "1500m", "ephemeral-storage": "2Gi"}
    assert kube_job(SPEC, SETTING, NOW) == {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "j-s1", "labels": POD_LABELS},
        "spec": {
            "parallelism": 1,
            "completions": 1,
            "backoffLimit": 0,
            "podReplacementPolicy": "Failed",
            "podFailurePolicy": {
                "rules": [{"action": "FailJob", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}]
            },
            "activeDeadlineSeconds": 3660 + 300 + 600,
            "ttlSecondsAfterFinished": 86400,
            "template": {
                "metadata": {
                    "labels": {"sidecar.istio.io/inject": "false"} | POD_LABELS,
                    "annotations": {
                        "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
                        "karpenter.sh/do-not-disrupt": "true",
                        "sidecar.istio.io/inject": "false",
                        "linkerd.io/inject": "disabled",
                    },
                },
                "spec": {
                    "restartPolicy": "Never",
                    "terminationGracePeriodSeconds": 3,
                    "activeDeadlineSeconds": 3660,
                    "serviceAccountName": "default",
                    "automountServiceAccountToken": False,
                    "enableServiceLinks": False,
                    "securityContext": {
                        "runAsNonRoot": True,
                        "runAsUser": 65532,
                        "runAsGroup": 65533,
                        "seccompProfile": {"type": "RuntimeDefault"},
                    },
                    "tolerations": AWAY,
                    "containers": [
                        {
                            "name": "runtime",
                            "image": "registry.example/runtime@sha256:0123",
                            "imagePullPolicy": "IfNotPresent",
                            "workingDir": "/",
                            "args": [
                                *("--deadline", "1800003600"),
                                *("--files", "512"),
                                *("--stderr", "/run/perstack/stderr"),
                                *("--broker", "7443@192.0.2.2,fd00::2"),
                                *("--pin", "ab" * 32),
                                *("--token", "/run/secrets/perstack.ai/token"),
                                "--closed",
                                ";".join(CLOSED),
                            ],
                            "env": [{"name": "NODE_IPS", "valueFrom": {"fieldRef": {"fieldPath": "status.hostIPs"}}}],
                            "securityContext": {
                                "allowPrivilegeEscalation": False,
                                "capabilities": {"drop": ["ALL"]},
                                "privileged": False,
                                "readOnlyRootFilesystem": True,
                            },
                            "resources": {"limits": limits, "requests": limits | {"cpu": "100m"}},
                            "terminationMessagePolicy": "File",
                            "volumeMounts": [
                                {"name": "claim", "mountPath": "/workspace", "subPath": "ws"},
                                {"name": "claim", "mountPath": "/run/perstack", "subPath": "state/job/1"},
                                {"name": "tmp", "mountPath": "/tmp"},
                                {"name": "skills", "mountPath": "/run/skills"},
                                {"name": "claim", "mountPath": "/packages", "subPath": "packages", "readOnly": True},
                                {"name": "identity", "mountPath": "/run/secrets/perstack.ai", "readOnly": True},
                                {
                                    "name": "claim",
                                    "mountPath": "/workspace/perstack.toml",
                                    "subPath": "ws/perstack.toml",
                                    "readOnly": True,
                                },
                                {
                                    "name": "claim",
                                    "mountPath": "/workspace/.env",
                                    "subPath": "state/job/empty",
                                    "readOnly": True,
                                },
                            ],
                        }
                    ],
                    "volumes": [
                        {"name": "claim", "persistentVolumeClaim": {"claimName": "u1"}},
                        {"name": "tmp", "emptyDir": {"sizeLimit": "67108864"}},
                        {"name": "skills", "emptyDir": {"sizeLimit": "67108864"}},
                        {
                            "name": "identity",
                            "projected": {
                                "defaultMode": 0o444,
                                "sources": [
                                    {
                                        "serviceAccountToken": {
                                            "audience": "perstack-broker",
                                            "expirationSeconds": 600,
                                            "path": "token",
                                        }
                                    }
                                ],
                            },
                        },
                    ],
                },
            },
        },
    }


def test_an_operator_s_runtime_class_is_for_jobs_that_name_none() -> None:
    """The job's own runtime class takes precedence, like its image."""
    setting = replace(SETTING, pod=PodSetting(runtime_class_name="kata"))
    assert pod_of(kube_job(SPEC, setting, NOW)) == pod_of(kube_job(SPEC, SETTING, NOW)) | {"runtimeClassName": "kata"}


def test_what_an_operator_adds() -> None:
    """Each setting is at its place in the manifest; the Pods of a claim stay on one node."""
    pod = PodSetting(
        service_account_name="sandbox",
        runtime_class_name="kata",
        image_pull_secrets=("pull",),
        priority_class_name="agents",
        node_selector={"pool": "agents"},
        tolerations=({"key": "pool", "operator": "Exists"},),
        annotations={"team": "a"},
        labels={"team": "a"},
        memory="512Mi",
        cpu="2",
        cpu_request="50m",
        storage="1Gi",
        any_user=True,
        one_node=True,
        user_namespace=True,
    )
    spec = replace(SPEC, runtime_class="gvisor")
    made = kube_job(spec, replace(SETTING, pod=pod, coordinator=Owner("run-1", "uid-1")), NOW)
    plain = kube_job(SPEC, SETTING, NOW)
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": "run-1", "uid": "uid-1"}
    assert made["metadata"] == {
        "name": "j-s1",
        "labels": POD_LABELS,
        "ownerReferences": [owner | {"controller": False, "blockOwnerDeletion": False}],
    }
    template = plain["spec"]["template"]["metadata"]
    assert made["spec"]["template"]["metadata"] == {
        "labels": template["labels"] | {"team": "a"},
        "annotations": template["annotations"] | {"team": "a"},
    }
    resources = {"memory": "512Mi", "ephemeral-storage": "1Gi"}
    container = pod_of(plain)["containers"][0]
    assert pod_of(made) == pod_of(plain) | {
        "serviceAccountName": "sandbox",
        "imagePullSecrets": [{"name": "pull"}],
        "runtimeClassName": "gvisor",
        "priorityClassName": "agents",
        "nodeSelector": {"pool": "agents"},
        "tolerations": [*AWAY, {"key": "pool", "operator": "Exists"}],
        "hostUsers": False,
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "affinity": {
            "podAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": [
                    {
                        "labelSelector": {"matchLabels": {"perstack.ai/claim": "u1"}},
                        "topologyKey": "kubernetes.io/hostname",
                    }
                ]
            }
        },
        "containers": [
            container | {"resources": {"limits": resources | {"cpu": "2"}, "requests": resources | {"cpu": "50m"}}}
        ],
    }


def test_name_servers_that_are_known_here_are_tried_too() -> None:
    """They are tried in addition to those of the Pod's own resolver."""
    made = kube_job(SPEC, replace(SETTING, name_servers=("10.96.0.10", "fd00::10")), NOW)
    assert pod_of(made)["containers"][0]["args"][-2:] == ["--names", "10.96.0.10,fd00::10"]


def test_the_policy_of_a_sandbox_is_known_from_its_job() -> None:
    """The policy's name can be read from the Job; a Sandbox without a broker has none."""
    made = kube_job(SPEC, SETTING, NOW)
    assert SPEC.broker is not None
    assert policy_of(made) == policy_name(SPEC, SPEC.broker)
    assert policy_of(kube_job(replace(SPEC, broker=None), SETTING, NOW)) is None
    assert policy_of(kube_job(SPEC, SETTING, NOW, ("/bin/true",))) is None


def test_where_no_policy_is_enforced_nothing_is_tried() -> None:
    """The Sandbox connects to its broker without any checks."""
    made = kube_job(SPEC, replace(SETTING, enforced=False, name_servers=("10.96.0.10",)), NOW)
    assert {"--closed", "--names"}.isdisjoint(pod_of(made)["containers"][0]["args"])


def test_a_command_replaces_the_entrypoint() -> None:
    """A command replaces the entrypoint if one is given; otherwise the image's own runs."""
    container = pod_of(kube_job(SPEC, SETTING, NOW, ("/bin/true",)))["containers"][0]
    assert (container["command"], container.keys() & {"args", "env"}) == (["/bin/true"], set())


def test_mounts_are_listed_path_by_path() -> None:
    """Each path is listed with its source on the claim and its mode."""
    assert list(mounted(SPEC, SETTING)) == [
        ("/workspace", "ws of the claim u1", "read-write"),
        ("/run/perstack", "state/job/1 of the claim u1", "read-write"),
        ("/tmp", "emptyDir", "read-write"),
        ("/run/skills", "emptyDir", "read-write"),
        ("/packages", "packages of the claim u1", "read-only"),
        ("/run/secrets/perstack.ai", "its token", "read-only"),
        ("/workspace/perstack.toml", "ws/perstack.toml of the claim u1", "read-only"),
        ("/workspace/.env", "nothing", "empty"),
        ("/", "registry.example/runtime@sha256:0123", "read-only"),
    ]


def test_an_installer_may_write_its_packages() -> None:
    """Every other Sandbox mounts them read-only."""
    made = kube_job(replace(SPEC, installs=True), SETTING, NOW)
    mounts = pod_of(made)["containers"][0]["volumeMounts"]
    assert {"name": "claim", "mountPath": "/packages", "subPath": "packages"} in mounts


def test_in_a_queue_time_begins_when_a_pod_runs() -> None:
    """A Sandbox that a queue held for days is neither removed as orphaned nor late when it starts.

    The queue's label is on the Job only: on the Pod, Kueue would queue that too.
    """
    queued = replace(SETTING, pod=PodSetting(queue_name="agents"))
    made, plain = kube_job(SPEC, queued, NOW), kube_job(SPEC, SETTING, NOW)
    held = 90 * 24 * 3600
    late = {"perstack.ai/deadline": str(NOW + 3600 + held)}
    container = pod_of(plain)["containers"][0]
    deadline = container["args"].index("--deadline")
    container["args"][deadline : deadline + 2] = []
    plain["metadata"]["labels"] |= late | {"kueue.x-k8s.io/queue-name": "agents"}
    plain["spec"]["template"]["metadata"]["labels"] |= late
    plain["spec"]["activeDeadlineSeconds"] += held
    assert made == plain
    assert pod_of(made)["activeDeadlineSeconds"] == 3600 + 60
    assert network_policy(SPEC, queued)["metadata"]["labels"]["perstack.ai/deadline"] == late["perstack.ai/deadline"]


def test_a_deadline_beyond_what_the_api_takes_is_the_longest_it_takes() -> None:
    """The API's seconds have 31 bits."""
    made = kube_job(replace(SPEC, deadline=2**40), SETTING, NOW)
    assert (made["spec"]["activeDeadlineSeconds"], pod_of(made)["activeDeadlineSeconds"]) == (2**31 - 1, 2**31 - 1)


@pytest.mark.parametrize("workspace", [ROOT, Path("/elsewhere"), Path("/claims")])
def test_what_is_not_on_the_claim_is_refused(workspace: Path) -> None:
    """The claim's root is refused too: it holds the state of other Sandboxes."""
    with pytest.raises(ConfigError, match="no Sandbox sees it"):
        kube_job(replace(SPEC, workspace=workspace), SETTING, NOW)


def test_the_network_of_a_job() -> None:
    """Egress is open to the broker's port at its addresses only, and ingress is closed."""
    assert network_policy(SPEC, SETTING) == {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {
            "name": "j-p7443",
            "labels": {name: value for name, value in POD_LABELS.items() if name != "perstack.ai/sandbox"},
        },
        "spec": {
            "podSelector": {
                "matchLabels": {
                    "app.kubernetes.io/managed-by": "perstack-orch",
                    "perstack.ai/job": "j",
                    "perstack.ai/instance": "i",
                }
            },
            "policyTypes": ["Egress", "Ingress"],
            "ingress": [],
            "egress": [
                {
                    "to": [{"ipBlock": {"cidr": "192.0.2.2/32"}}, {"ipBlock": {"cidr": "fd00::2/128"}}],
                    "ports": [{"protocol": "TCP", "port": 7443}],
                }
            ],
        },
    }


def test_the_network_of_a_job_with_a_coordinator() -> None:
    """The peers are the coordinator's Pods: behind a Service, policies apply to the address where packets arrive."""
    made = network_policy(SPEC, replace(SETTING, coordinator=Owner("run-1", "uid-1")))
    assert made["spec"]["egress"][0]["to"] == [
        {"podSelector": {"matchLabels": {"batch.kubernetes.io/job-name": "run-1"}}}
    ]
    assert made["metadata"]["ownerReferences"][0]["uid"] == "uid-1"
