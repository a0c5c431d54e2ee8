"""A SandboxSpec as a Kubernetes Job, and the network of a job's Sandboxes; pure.

Nothing here reveals which Expert will run: no query, no key, no value of a variable, no Secret of a Run. The reasons
for the single fields: docs/reference/reliability.md#fields-of-a-job.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from orchestrator.backends.cluster_settings import Claim, ClusterSetting
from orchestrator.sandbox.api import BrokerAddress, SandboxSpec
from orchestrator.sandbox.layout import Mount, Source, host_path, mounts, runtime_arguments
from orchestrator.sandbox.naming import DEADLINE, INSTANCE, JOB, MANAGED_BY, SANDBOX, claim_labels
from orchestrator.wire.layout import SHARED, SKILLS, TOKEN

CONTAINER = "runtime"

_MEMORY = {SHARED: "tmp", SKILLS: "skills"}
"""The volumes in memory, by the path where each is mounted."""

AUDIENCE = "perstack-broker"
GRACE_SECONDS = 3
KUBELET = 10250

_TOKEN_SECONDS = 600
_SLACK_SECONDS = 60
_TTL_SECONDS = 24 * 60 * 60
_NODE_LOST_SECONDS = 120
"""How long a Pod stays on a node that is not ready or unreachable."""
_MAX_SECONDS = 2**31 - 1
_VOLUME, _IDENTITY = "claim", "identity"
_QUEUE = "kueue.x-k8s.io/queue-name"
_QUEUE_SECONDS = 90 * 24 * 60 * 60
"""How long a queue may hold a Sandbox before it counts as orphaned."""

Manifest = dict[str, Any]

_NO_DISTURBANCE = {
    "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
    "karpenter.sh/do-not-disrupt": "true",
    # A mesh's proxy accepts every connection, so the check that forbidden connections are refused would fail.
    "sidecar.istio.io/inject": "false",
    "linkerd.io/inject": "disabled",
}


def kube_job(spec: SandboxSpec, setting: ClusterSetting, now: int, command: tuple[str, ...] | None = None) -> Manifest:
    """Describe the Job of a Sandbox; `now` is Unix seconds, `command` replaces the image's entrypoint.

    Raises:
        ConfigError: one of its directories is not on the claim.
    """
    labels = sandbox_labels(spec, setting)
    lives = min(max(spec.deadline - now, 1) + _SLACK_SECONDS, _MAX_SECONDS)
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": spec.name,
            "labels": labels | ({} if setting.pod.queue_name is None else {_QUEUE: setting.pod.queue_name}),
            **_owner_references(setting),
        },
        "spec": {
            "parallelism": 1,
            "completions": 1,
            # Retrying a Run is the orchestrator's decision: a second Pod would repeat its work.
            "backoffLimit": 0,
            "podReplacementPolicy": "Failed",
            "podFailurePolicy": {
                "rules": [
                    {"action": "FailJob", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
                ]
            },
            "activeDeadlineSeconds": min(
                lives + round(setting.start_seconds) + 600 + _queue_seconds(setting), _MAX_SECONDS
            ),
            "ttlSecondsAfterFinished": _TTL_SECONDS,
            "template": {
                "metadata": {
                    "labels": pod_labels(spec, setting),
                    "annotations": _NO_DISTURBANCE | dict(setting.pod.annotations),
                },
                "spec": _pod(spec, setting, command) | {"activeDeadlineSeconds": lives},
            },
        },
    }


def sandbox_labels(spec: SandboxSpec, setting: ClusterSetting) -> dict[str, str]:
    """Return the labels of a Sandbox's Job and Pod."""
    late = {DEADLINE: str(spec.deadline + _queue_seconds(setting))} if DEADLINE in spec.labels else {}
    return dict(spec.labels) | late | claim_labels(setting.claim.name)


def pod_labels(spec: SandboxSpec, setting: ClusterSetting) -> dict[str, str]:
    """Return all labels that a Sandbox's Pod is created with."""
    return {"sidecar.istio.io/inject": "false"} | dict(setting.pod.labels) | sandbox_labels(spec, setting)


def _queue_seconds(setting: ClusterSetting) -> int:
    return 0 if setting.pod.queue_name is None else _QUEUE_SECONDS


def network_policy(spec: SandboxSpec, setting: ClusterSetting) -> Manifest:
    """Describe the network of a job's Sandboxes: egress to the broker's port only, no ingress.

    Raises:
        ValueError: the Sandbox has no broker to reach over a network.
    """
    if spec.broker is None:
        message = f"the Sandbox {spec.name} has no broker's address"
        raise ValueError(message)
    labels = {name: value for name, value in sandbox_labels(spec, setting).items() if name != SANDBOX}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": policy_name(spec, spec.broker), "labels": labels, **_owner_references(setting)},
        "spec": {
            "podSelector": {"matchLabels": {name: spec.labels[name] for name in (MANAGED_BY, JOB, INSTANCE)}},
            "policyTypes": ["Egress", "Ingress"],
            "ingress": [],
            "egress": [{"to": _peers(spec.broker, setting), "ports": [{"protocol": "TCP", "port": spec.broker.port}]}],
        },
    }


def policy_name(spec: SandboxSpec, broker: BrokerAddress) -> str:
    """Return the name of the NetworkPolicy for a Sandbox's job and broker."""
    return _policy_name(spec.name, broker.port)


def policy_of(job: Manifest) -> str | None:
    """Return the name of the NetworkPolicy from a Sandbox's Job; None if it reaches no broker over a network."""
    arguments = job["spec"]["template"]["spec"]["containers"][0].get("args") or []
    broker = next((value for option, value in pairwise(arguments) if option == "--broker"), None)
    return None if broker is None else _policy_name(job["metadata"]["name"], broker.partition("@")[0])


def _policy_name(sandbox: str, port: int | str) -> str:
    return f"{sandbox.rpartition('-s')[0]}-p{port}"


def _peers(broker: BrokerAddress, setting: ClusterSetting) -> list[Manifest]:
    if setting.coordinator is not None:
        # Behind a Service: policies apply to the address where packets arrive.
        return [{"podSelector": {"matchLabels": {"batch.kubernetes.io/job-name": setting.coordinator.name}}}]
    return [{"ipBlock": {"cidr": f"{host}/{128 if ':' in host else 32}"}} for host in broker.hosts]


def _owner_references(setting: ClusterSetting) -> Manifest:
    if setting.coordinator is None:
        return {}
    return {"ownerReferences": [setting.coordinator.reference]}


def _pod(spec: SandboxSpec, setting: ClusterSetting, command: tuple[str, ...] | None) -> Manifest:
    pod = setting.pod
    node_tolerations = [
        {"key": f"node.kubernetes.io/{what}", "operator": "Exists", "effect": "NoExecute",
         "tolerationSeconds": _NODE_LOST_SECONDS}
        for what in ("not-ready", "unreachable")
    ]  # fmt: skip
    user = {} if pod.any_user else {"runAsUser": spec.user.uid, "runAsGroup": spec.user.gid}
    runtime_class = spec.runtime_class or pod.runtime_class_name
    return {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "serviceAccountName": pod.service_account_name,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {"runAsNonRoot": True, **user, "seccompProfile": {"type": "RuntimeDefault"}},
        "tolerations": [*node_tolerations, *map(dict, pod.tolerations)],
        "containers": [_container(spec, setting, command)],
        "volumes": [
            {"name": _VOLUME, "persistentVolumeClaim": {"claimName": setting.claim.name}},
            *({"name": name, "emptyDir": {"sizeLimit": str(spec.limits.tmp)}} for name in _MEMORY.values()),
            *([] if spec.broker is None else [{"name": _IDENTITY, "projected": _identity()}]),
        ],
        **({"hostUsers": False} if pod.user_namespace else {}),
        **({"runtimeClassName": runtime_class} if runtime_class else {}),
        **({"priorityClassName": pod.priority_class_name} if pod.priority_class_name else {}),
        **({"nodeSelector": dict(pod.node_selector)} if pod.node_selector else {}),
        **({"imagePullSecrets": [{"name": name} for name in pod.image_pull_secrets]} if pod.image_pull_secrets else {}),
        **({"affinity": _pod_affinity(setting.claim)} if pod.one_node else {}),
    }


def _identity() -> Manifest:
    token = {"audience": AUDIENCE, "expirationSeconds": _TOKEN_SECONDS, "path": TOKEN.name}
    return {"defaultMode": 0o444, "sources": [{"serviceAccountToken": token}]}


def _pod_affinity(claim: Claim) -> Manifest:
    term = {"labelSelector": {"matchLabels": claim_labels(claim.name)}, "topologyKey": "kubernetes.io/hostname"}
    return {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}


def _container(spec: SandboxSpec, setting: ClusterSetting, command: tuple[str, ...] | None) -> Manifest:
    pod, limits = setting.pod, spec.limits
    memory = pod.memory or str(limits.memory)
    limited = {"memory": memory, "cpu": pod.cpu or f"{round(limits.cpus * 1000)}m", "ephemeral-storage": pod.storage}
    run: Manifest = {"args": _arguments(spec, setting)} if command is None else {"command": list(command)}
    return {
        "name": CONTAINER,
        "image": spec.image,
        "imagePullPolicy": "IfNotPresent",
        "workingDir": "/",
        **run,
        **({"env": [_node_addresses()]} if command is None and spec.broker is not None else {}),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "privileged": False,
            "readOnlyRootFilesystem": True,
        },
        "resources": {"limits": limited, "requests": limited | {"cpu": pod.cpu_request}},
        "terminationMessagePolicy": "File",
        "volumeMounts": _mounts(spec, setting.claim),
    }


def _node_addresses() -> Manifest:
    return {"name": "NODE_IPS", "valueFrom": {"fieldRef": {"fieldPath": "status.hostIPs"}}}


def _arguments(spec: SandboxSpec, setting: ClusterSetting) -> list[str]:
    # A Pod has no field for the number of open files, so the runtime sets that limit, for itself too.
    # In a queue, the start time is unknown, so the Pod's own activeDeadlineSeconds ends it.
    return list(
        runtime_arguments(
            spec,
            has_deadline=setting.pod.queue_name is None,
            bounds_files=True,
            keeps_stderr=True,
            closed=_closed_addresses(spec.broker, setting) if spec.broker is not None and setting.enforced else (),
            name_servers=setting.name_servers,
        )
    )


def _closed_addresses(broker: BrokerAddress, setting: ClusterSetting) -> list[str]:
    """List what a Sandbox must not reach, as `PORT@HOST,HOST`; the kubelet fills in what only it knows."""
    outside = [address.rpartition(":") for address in setting.outside]
    return [
        f"{broker.forbidden}@{','.join(broker.hosts)}",
        "$(KUBERNETES_SERVICE_PORT)@$(KUBERNETES_SERVICE_HOST)",
        f"{KUBELET}@$(NODE_IPS)",
        *(f"{port}@{host.strip('[]')}" for host, _, port in outside),
    ]


def _mounts(spec: SandboxSpec, claim: Claim) -> list[Manifest]:
    # Pods reach their broker over TLS, so they need no socket directory.
    return [_mount(spec, mount, claim) for mount in mounts(spec) if mount.source is not Source.SOCKET_DIRECTORY]


def _mount(spec: SandboxSpec, mount: Mount, claim: Claim) -> Manifest:
    read_only = {"readOnly": True} if mount.read_only else {}
    match mount.source:
        case Source.MEMORY:
            volume = {"name": _MEMORY[mount.target], "mountPath": str(mount.target)}
        case Source.TOKEN:
            volume = {"name": _IDENTITY, "mountPath": str(mount.target)}
        case _:
            sub_path = claim.sub_path(host_path(spec, mount) or spec.state.parent / EMPTY)
            volume = {"name": _VOLUME, "mountPath": str(mount.target), "subPath": sub_path}
    return volume | read_only


def mounted(spec: SandboxSpec, setting: ClusterSetting) -> Iterator[tuple[str, str, str]]:
    """Yield each path of the Sandbox's own, its source, and its mode: read-write, read-only or empty.

    Raises:
        ConfigError: one of its directories is not on the claim.
    """
    for mount in _mounts(spec, setting.claim):
        mode = "read-only" if mount.get("readOnly") else "read-write"
        if mount["name"] != _VOLUME:
            yield mount["mountPath"], "its token" if mount["name"] == _IDENTITY else "emptyDir", mode
        elif mount["subPath"] == setting.claim.sub_path(spec.state.parent / EMPTY):
            yield mount["mountPath"], "nothing", "empty"
        else:
            yield mount["mountPath"], f"{mount['subPath']} of the claim {setting.claim.name}", mode
    yield "/", spec.image, "read-only"


EMPTY = "empty"
"""Next to the state directories of a job: an empty file that replaces a hidden one."""
