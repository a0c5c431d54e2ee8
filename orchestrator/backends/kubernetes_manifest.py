"""A SandboxSpec as a Kubernetes Job, and the network that a job's Sandboxes have; pure.

Nothing here tells which Expert will run: no query, no key, no value of a variable, no Secret of a Run. Reasons for the
single fields: reliability 4.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from orchestrator.backends.kubernetes_setting import Claim, ClusterSetting
from orchestrator.backends.naming import DEADLINE, INSTANCE, JOB, MANAGED_BY, SANDBOX, claim_labels
from orchestrator.sandbox import BrokerAddress, SandboxSpec, runtime_arguments

CONTAINER = "runtime"
WORKSPACE, STATE, PACKAGES, IDENTITY = "/workspace", "/run/perstack", "/packages", "/run/secrets/perstack.ai"
STDERR = "stderr"
"""In the state directory: the log of a container does not tell stderr from stdout."""

_TEMPORARY = {"tmp": "/tmp", "skills": "/run/skills"}  # noqa: S108 - the container's own
"""What commands share, and where each skill has a place of its own that commands cannot reach."""

AUDIENCE = "perstack-broker"
GRACE_SECONDS = 3
KUBELET = 10250

_TOKEN_SECONDS = 600
_SLACK_SECONDS = 60
_FORGOTTEN_SECONDS = 24 * 60 * 60
_AWAY_SECONDS = 120
_LONGEST = 2**31 - 1
_VOLUME, _IDENTITY = "claim", "identity"
_QUEUE = "kueue.x-k8s.io/queue-name"
_HELD_SECONDS = 90 * 24 * 60 * 60
"""How long a queue may hold a Sandbox back before it counts as left behind."""

Manifest = dict[str, Any]

_NO_DISTURBANCE = {
    "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
    "karpenter.sh/do-not-disrupt": "true",
    # The proxy of a mesh accepts every connection, so a gate that asks which ones are refused would not pass.
    "sidecar.istio.io/inject": "false",
    "linkerd.io/inject": "disabled",
}


def kube_job(spec: SandboxSpec, setting: ClusterSetting, now: int, command: tuple[str, ...] | None = None) -> Manifest:
    """Describe the Job of a Sandbox; `now` is Unix seconds, `command` replaces the image's entrypoint.

    Raises:
        ConfigError: a directory of it is not on the claim.
    """
    labels = sandbox_labels(spec, setting)
    lives = min(max(spec.deadline - now, 1) + _SLACK_SECONDS, _LONGEST)
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": spec.name,
            "labels": labels | ({} if setting.pod.queue_name is None else {_QUEUE: setting.pod.queue_name}),
            **_owned(setting),
        },
        "spec": {
            "parallelism": 1,
            "completions": 1,
            # What begins a Run again is ours to decide: a second Pod would do its work twice.
            "backoffLimit": 0,
            "podReplacementPolicy": "Failed",
            "podFailurePolicy": {
                "rules": [
                    {"action": "FailJob", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
                ]
            },
            "activeDeadlineSeconds": min(lives + round(setting.start_seconds) + 600 + _held(setting), _LONGEST),
            "ttlSecondsAfterFinished": _FORGOTTEN_SECONDS,
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
    """Give the labels of a Sandbox's Job and Pod."""
    late = {DEADLINE: str(spec.deadline + _held(setting))} if DEADLINE in spec.labels else {}
    return dict(spec.labels) | late | claim_labels(setting.claim.name)


def pod_labels(spec: SandboxSpec, setting: ClusterSetting) -> dict[str, str]:
    """Give all labels that a Sandbox's Pod is made with."""
    return {"sidecar.istio.io/inject": "false"} | dict(setting.pod.labels) | sandbox_labels(spec, setting)


def _held(setting: ClusterSetting) -> int:
    return 0 if setting.pod.queue_name is None else _HELD_SECONDS


def network_policy(spec: SandboxSpec, setting: ClusterSetting) -> Manifest:
    """Describe the network of a job's Sandboxes: the broker's port, and nobody comes in.

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
        "metadata": {"name": policy_name(spec, spec.broker), "labels": labels, **_owned(setting)},
        "spec": {
            "podSelector": {"matchLabels": {name: spec.labels[name] for name in (MANAGED_BY, JOB, INSTANCE)}},
            "policyTypes": ["Egress", "Ingress"],
            "ingress": [],
            "egress": [{"to": _peers(spec.broker, setting), "ports": [{"protocol": "TCP", "port": spec.broker.port}]}],
        },
    }


def policy_name(spec: SandboxSpec, broker: BrokerAddress) -> str:
    """Name the NetworkPolicy of a Sandbox's job and broker."""
    return _policy_name(spec.name, broker.port)


def policy_of(job: Manifest) -> str | None:
    """Name the NetworkPolicy of a Sandbox from its Job; None where it has no broker to reach over a network."""
    arguments = job["spec"]["template"]["spec"]["containers"][0].get("args") or []
    broker = next((told for option, told in pairwise(arguments) if option == "--broker"), None)
    return None if broker is None else _policy_name(job["metadata"]["name"], broker.partition("@")[0])


def _policy_name(sandbox: str, port: int | str) -> str:
    return f"{sandbox.rpartition('-s')[0]}-p{port}"


def _peers(broker: BrokerAddress, setting: ClusterSetting) -> list[Manifest]:
    if setting.coordinator is not None:
        # Behind a Service: policies judge where packets arrive.
        return [{"podSelector": {"matchLabels": {"batch.kubernetes.io/job-name": setting.coordinator.name}}}]
    return [{"ipBlock": {"cidr": f"{host}/{128 if ':' in host else 32}"}} for host in broker.hosts]


def _owned(setting: ClusterSetting) -> Manifest:
    if setting.coordinator is None:
        return {}
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": setting.coordinator.name, "uid": setting.coordinator.uid}
    # To block the owner's deletion would take a right that nothing here needs.
    return {"ownerReferences": [owner | {"controller": False, "blockOwnerDeletion": False}]}


def _pod(spec: SandboxSpec, setting: ClusterSetting, command: tuple[str, ...] | None) -> Manifest:
    pod = setting.pod
    away = [
        {"key": f"node.kubernetes.io/{what}", "operator": "Exists", "effect": "NoExecute",
         "tolerationSeconds": _AWAY_SECONDS}
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
        "tolerations": [*away, *map(dict, pod.tolerations)],
        "containers": [_container(spec, setting, command)],
        "volumes": [
            {"name": _VOLUME, "persistentVolumeClaim": {"claimName": setting.claim.name}},
            *({"name": name, "emptyDir": {"sizeLimit": str(spec.limits.tmp)}} for name in _TEMPORARY),
            *([] if spec.broker is None else [{"name": _IDENTITY, "projected": _identity()}]),
        ],
        **({"hostUsers": False} if pod.user_namespace else {}),
        **({"runtimeClassName": runtime_class} if runtime_class else {}),
        **({"priorityClassName": pod.priority_class_name} if pod.priority_class_name else {}),
        **({"nodeSelector": dict(pod.node_selector)} if pod.node_selector else {}),
        **({"imagePullSecrets": [{"name": name} for name in pod.image_pull_secrets]} if pod.image_pull_secrets else {}),
        **({"affinity": _beside_others(setting.claim)} if pod.one_node else {}),
    }


def _identity() -> Manifest:
    token = {"audience": AUDIENCE, "expirationSeconds": _TOKEN_SECONDS, "path": "token"}
    return {"defaultMode": 0o444, "sources": [{"serviceAccountToken": token}]}


def _beside_others(claim: Claim) -> Manifest:
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
    # A Pod has no word for how many files its processes may open, so the runtime bounds them, and itself.
    # In a queue its time begins when it comes to run, nobody knows when: the Pod's own activeDeadlineSeconds ends it.
    told = runtime_arguments(spec, has_deadline=setting.pod.queue_name is None)
    arguments = [*told, "--files", str(spec.limits.files), "--stderr", f"{STATE}/{STDERR}"]
    if spec.broker is None:
        return arguments
    broker = spec.broker
    hosts = ",".join(broker.hosts)
    arguments += ["--broker", f"{broker.port}@{hosts}", "--pin", broker.pin, "--token", f"{IDENTITY}/token"]
    if not setting.enforced:
        return arguments
    names = ("--names", ",".join(setting.name_servers)) if setting.name_servers else ()
    return [*arguments, "--closed", ";".join(_closed(broker, setting)), *names]


def _closed(broker: BrokerAddress, setting: ClusterSetting) -> list[str]:
    """List what a Sandbox must not reach, as `PORT@HOST,HOST`; the kubelet puts in what only it knows."""
    outside = [address.rpartition(":") for address in setting.outside]
    return [
        f"{broker.forbidden}@{','.join(broker.hosts)}",
        "$(KUBERNETES_SERVICE_PORT)@$(KUBERNETES_SERVICE_HOST)",
        f"{KUBELET}@$(NODE_IPS)",
        *(f"{port}@{host.strip('[]')}" for host, _, port in outside),
    ]


def _mounts(spec: SandboxSpec, claim: Claim) -> list[Manifest]:
    mounts = [
        _mount(WORKSPACE, claim.sub_path(spec.workspace)),
        _mount(STATE, claim.sub_path(spec.state)),
        *({"name": name, "mountPath": path} for name, path in _TEMPORARY.items()),
    ]
    if spec.packages is not None:
        mounts.append(_mount(PACKAGES, claim.sub_path(spec.packages), read_only=not spec.installs))
    if spec.broker is not None:
        mounts.append({"name": _IDENTITY, "mountPath": IDENTITY, "readOnly": True})
    mounts += [
        _mount(f"{WORKSPACE}/{file}", claim.sub_path(spec.workspace / file), read_only=True) for file in spec.read_only
    ]
    empty = spec.state.parent / EMPTY
    return mounts + [_mount(f"{WORKSPACE}/{file}", claim.sub_path(empty), read_only=True) for file in spec.hidden]


def mounted(spec: SandboxSpec, setting: ClusterSetting) -> Iterator[tuple[str, str, str]]:
    """Give each path of the Sandbox's own, what is there, and how: read-write, read-only or empty.

    Raises:
        ConfigError: a directory of it is not on the claim.
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
"""Beside the state directories of a job: a file that is shown in place of one that is hidden."""


def _mount(target: str, sub_path: str, *, read_only: bool = False) -> Manifest:
    return {"name": _VOLUME, "mountPath": target, "subPath": sub_path, **({"readOnly": True} if read_only else {})}
