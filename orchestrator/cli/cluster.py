"""From options to the cluster that `--backend kubernetes` uses, where this process is the coordinator."""

import ipaddress
from pathlib import Path

from msgspec.json import Decoder

from orchestrator.backends.kubernetes_setting import Claim, ClusterSetting, PodSetting
from orchestrator.cli.options import ClusterOptions, RunOptions
from orchestrator.disk.plain_file import HAND_WRITTEN_BYTES, read_plain
from orchestrator.errors import ConfigError, WireError
from orchestrator.unenforced import OPEN_NETWORK
from orchestrator.wire.frozen import read_json
from orchestrator.wire.resolvers import name_servers

CLUSTER, LOCAL = "cluster", "local"
"""Where the coordinator of a job may be: a Job of the cluster, or this process."""

UNENFORCED = f"--allow-unenforced-network: {OPEN_NETWORK}"
_PORTS = 2
_POD_SETTING = Decoder(PodSetting)
_ADDRESS = "--broker-address IP"


def is_submitted(options: RunOptions) -> bool:
    """Whether a job is worked in a cluster and not by this process."""
    return options.backend == "kubernetes" and options.coordinator == CLUSTER


def cluster_of(backend: str, options: ClusterOptions, cwd: Path, *, launches: bool = True) -> ClusterSetting | None:
    """Read where in a cluster Sandboxes run; None for other backends. Who `launches` some must say where it answers.

    Raises:
        ConfigError: names the option and what it takes.
    """
    if backend != "kubernetes":
        return None
    if options.coordinator != LOCAL:
        message = (
            "this runs here, and jobs of --backend kubernetes run in the cluster: where Pods can reach this machine and"
            " the claim is mounted here, say so with --coordinator local"
        )
        raise ConfigError(message)
    missing = [
        option
        for option, value in (
            ("--claim NAME", options.claim),
            ("--claim-mount DIR", options.claim_mount),
            (_ADDRESS, options.broker_address),
        )
        if not value and (launches or option != _ADDRESS)
    ]
    if options.claim is None or options.claim_mount is None or missing:
        message = f"--backend kubernetes also needs {', '.join(missing)}"
        raise ConfigError(message)
    root = (cwd / options.claim_mount).resolve()
    if not root.is_dir():
        message = f"--claim-mount {options.claim_mount!r} is not usable: there is no such directory"
        raise ConfigError(message)
    port, forbidden = ports_of(options.broker_port)
    return ClusterSetting(
        namespace=options.namespace or "default",
        claim=Claim(options.claim, root),
        hosts=tuple(_address("--broker-address", text) for text in listed(options.broker_address)),
        port=port,
        forbidden=forbidden,
        outside=tuple(listed(options.outside)),
        name_servers=name_servers(),
        start_seconds=options.start_seconds,
        enforced=not options.allow_unenforced_network,
        pod=pod_setting_of(options.pod_setting, cwd),
    )


def listed(texts: tuple[str, ...]) -> list[str]:
    """Give all that an option lists, or its variable, which holds several with commas or spaces between."""
    return [part for text in texts for part in text.replace(",", " ").split()]


def _address(option: str, text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError as error:
        message = f"{option} {text!r} is not usable: give an IP address, Sandboxes resolve no names"
        raise ConfigError(message) from error


def ports_of(text: str | None) -> tuple[int, int]:
    """Read `--broker-port`; zeros where it was not given.

    Raises:
        ConfigError: it is not two ports.
    """
    if text is None:
        return 0, 0
    parts = text.split(",")
    if len(parts) != _PORTS or not all(part.isdecimal() and 0 < int(part) < 1 << 16 for part in parts):
        message = f"--broker-port {text!r} is not usable: give two ports, that of the broker and one that stays closed"
        raise ConfigError(message)
    return int(parts[0]), int(parts[1])


def pod_setting_of(named: str | None, cwd: Path) -> PodSetting:
    """Read the file that `--pod-setting` names.

    Raises:
        ConfigError: it cannot be used.
    """
    if named is None:
        return PodSetting()
    try:
        return read_json(_POD_SETTING, read_plain(cwd / named, HAND_WRITTEN_BYTES))
    except (OSError, ValueError, WireError) as error:
        said = error.strerror if isinstance(error, OSError) else str(error)
        message = f"--pod-setting {named!r} is not usable: {said}"
        raise ConfigError(message) from error
