"""The cluster, the claim, and the operator's settings for every Sandbox's Pod."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from orchestrator.errors import ConfigError
from orchestrator.sandbox.api import DEFAULT_LIMITS
from orchestrator.wire.frozen import Frozen
from orchestrator.wire.grant_record import ResourceLimits

_QUANTITY = re.compile(r"(\d{1,18}(?:\.\d{0,18})?|\.\d{1,18})(?:[eE]([+-]?\d{1,2})|([numkMGTPE]|[KMGTPE]i)?)", re.ASCII)
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = ("Ki", "Mi", "Gi", "Ti", "Pi", "Ei")


def parse_quantity(text: str) -> Decimal:
    """Parse a quantity.

    Raises:
        ValueError: the text is not a quantity, or not above zero.
    """
    match = _QUANTITY.fullmatch(text)
    if match is None:
        message = "give a quantity like 512Mi, 2Gi, 500m or 1.5"
        raise ValueError(message)
    digits, power, suffix = match.groups()
    if suffix in _BINARY:
        value = Decimal(digits) * Decimal(1024) ** (_BINARY.index(suffix) + 1)
    else:
        value = Decimal(digits).scaleb(int(power) if power else _DECIMAL[suffix or ""])
    if not value:
        message = "give a quantity above zero"
        raise ValueError(message)
    return value


START_SECONDS = 300.0
"""How long a Pod may take to start, by default."""


class PodSetting(Frozen):
    """Extra settings for Sandboxes' Pods; names and values as in a Pod's own spec.

    `memory`, `cpu`, `cpu_request` and `storage` are quantities and override the job's limits; the job's own runtime
    class overrides `runtime_class_name`. `any_user` leaves the user to the cluster (OpenShift). `one_node` keeps the
    Pods of a claim on one node, as ReadWriteOnce needs. `queue_name` is Kueue's. `user_namespace` gives each Pod its
    own.
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


def pod_limits(pod: PodSetting) -> ResourceLimits:
    """Return the limits of a Sandbox whose Pod has this setting. Only its node knows the limit of processes.

    Raises:
        ConfigError: a quantity is not valid.
    """
    return DEFAULT_LIMITS.with_(
        memory=int(_quantity("memory", pod.memory, DEFAULT_LIMITS.memory)),
        cpus=float(_quantity("cpu", pod.cpu, DEFAULT_LIMITS.cpus)),
        pids=None,
    )


def _quantity(name: str, text: str | None, otherwise: float) -> Decimal | float:
    try:
        return otherwise if text is None else parse_quantity(text)
    except ValueError as error:
        message = f"{name} {text!r} in the Pods' setting is not valid: {error}"
        raise ConfigError(message) from error


@dataclass(frozen=True, slots=True)
class Claim:
    """A PersistentVolumeClaim, and its mount point here: what a Sandbox mounts is below `root`."""

    name: str
    root: Path

    def sub_path(self, path: Path) -> str:
        """Return a path below `root` as Kubernetes writes it; never `root` itself.

        Raises:
            ConfigError: the path is not below `root`.
        """
        if path == self.root or not path.is_relative_to(self.root):
            message = f"{path} is not below {self.root}, where the claim {self.name} is mounted: no Sandbox sees it"
            raise ConfigError(message)
        return path.relative_to(self.root).as_posix()


@dataclass(frozen=True, slots=True)
class Owner:
    """The Job that a coordinator runs as; the cluster deletes its job's objects with it."""

    name: str
    uid: str

    @property
    def reference(self) -> dict[str, Any]:
        """The owner reference of an object that belongs to it."""
        # `blockOwnerDeletion` would need a right that nothing else here needs.
        return {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "name": self.name,
            "uid": self.uid,
            "controller": False,
            "blockOwnerDeletion": False,
        }


@dataclass(frozen=True, slots=True)
class ClusterSetting:
    """How Sandboxes run in a cluster, and how they reach the broker.

    `hosts` are the broker's IP addresses as Pods see them, one of each family; a port of 0 means any free port.
    `outside` are more addresses `HOST:PORT` that a Sandbox must not reach, in addition to those always tried;
    `name_servers` are those of this process, which no Sandbox may query either. A Sandbox that does not start within
    `start_seconds` is given up. Only where `enforced` is false may a Sandbox have a network.
    """

    namespace: str
    claim: Claim
    hosts: tuple[str, ...]
    port: int = 0
    forbidden: int = 0
    outside: tuple[str, ...] = ()
    name_servers: tuple[str, ...] = ()
    coordinator: Owner | None = None
    start_seconds: float = START_SECONDS
    enforced: bool = True
    pod: PodSetting = field(default_factory=PodSetting)
