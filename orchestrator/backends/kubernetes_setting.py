"""Which cluster, which claim, and what an operator adds to every Sandbox's Pod."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from orchestrator.backends.kubernetes_quantity import parse_quantity
from orchestrator.errors import ConfigError
from orchestrator.sandbox import Limits
from orchestrator.wire.frozen import Frozen


class PodSetting(Frozen):
    """What Sandboxes' Pods are given besides; names and values as in a Pod's own spec.

    `memory`, `cpu`, `cpu_request` and `storage` are quantities and go before the job's limits; `runtime_class_name`
    comes after the job's own. `any_user` leaves the user to the cluster (OpenShift). `one_node` keeps the Pods of a
    claim on one node, as ReadWriteOnce needs. `queue_name` is Kueue's. `user_namespace` asks for one of the Pod's own.
    """

    service_account_name: str = "default"
    image_pull_secrets: tuple[str, ...] = ()
    runtime_class_name: str | None = None
    priority_class_name: str | None = None
    node_selector: Mapping[str, str] = {}
    tolerations: tuple[Mapping[str, Any], ...] = ()
    annotations: Mapping[str, str] = {}
    labels: Mapping[str, str] = {}
    queue_name: str | None = None
    memory: str | None = None
    cpu: str | None = None
    cpu_request: str = "100m"
    storage: str = "2Gi"
    any_user: bool = False
    one_node: bool = False
    user_namespace: bool = False


def pod_limits(pod: PodSetting) -> Limits:
    """What a Sandbox may use whose Pod is made so. How many processes it may have only its node can say.

    Raises:
        ConfigError: a quantity is none.
    """
    usual = Limits()
    return Limits(
        memory=int(_quantity("memory", pod.memory, usual.memory)),
        cpus=float(_quantity("cpu", pod.cpu, usual.cpus)),
        pids=None,
    )


def _quantity(name: str, text: str | None, otherwise: float) -> Decimal | float:
    try:
        return otherwise if text is None else parse_quantity(text)
    except ValueError as error:
        message = f"{name} {text!r} of the Pods' setting is not usable: {error}"
        raise ConfigError(message) from error


@dataclass(frozen=True, slots=True)
class Claim:
    """A PersistentVolumeClaim, and where it is mounted here: what a Sandbox mounts is below `root`."""

    name: str
    root: Path

    def sub_path(self, path: Path) -> str:
        """Name a path below `root` as Kubernetes does; never `root` itself.

        Raises:
            ConfigError: it is not there.
        """
        if path == self.root or not path.is_relative_to(self.root):
            message = f"{path} is not below {self.root}, where the claim {self.name} is mounted: no Sandbox sees it"
            raise ConfigError(message)
        return path.relative_to(self.root).as_posix()


@dataclass(frozen=True, slots=True)
class Owner:
    """The Job that a coordinator runs as: what is made for its job goes when it goes."""

    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class ClusterSetting:
    """How Sandboxes run in a cluster, and how they reach the broker.

    `hosts` are the broker's IP addresses as Pods see them, one of each family; ports that are 0 are chosen. `outside`
    are addresses `HOST:PORT` that a Sandbox must not reach, beside those that are tried anyway;
    `name_servers` are those of this process, which no Sandbox may ask either. Who does not come to
    run within `start_seconds` is given up. Only where `enforced` is false may a Sandbox have a network.
    """

    namespace: str
    claim: Claim
    hosts: tuple[str, ...]
    port: int = 0
    forbidden: int = 0
    outside: tuple[str, ...] = ()
    name_servers: tuple[str, ...] = ()
    coordinator: Owner | None = None
    start_seconds: float = 300.0
    enforced: bool = True
    pod: PodSetting = field(default_factory=PodSetting)
