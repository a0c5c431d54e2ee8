"""From options to the cluster that `--backend kubernetes` uses, for a coordinator that is this process."""

import ipaddress
from pathlib import Path

from msgspec.json import Decoder

from orchestrator.backends import is_cluster
from orchestrator.backends.cluster_settings import Claim, ClusterSetting, PodSetting
from orchestrator.cli.options import RunOptions
from orchestrator.disk.plain_file import HAND_WRITTEN_BYTES, read_plain
from orchestrator.errors import ConfigError, WireError
from orchestrator.explain.gaps import OPEN_NETWORK
from orchestrator.wire.frozen import read_json
from orchestrator.wire.name_servers import name_servers

CLUSTER, LOCAL = "cluster", "local"
"""Where a job's coordinator runs: as a Job in the cluster, or as this process."""

UNENFORCED = f"--allow-unenforced-network: {OPEN_NETWORK}"
_PORTS = 2
_POD_SETTING = Decoder(PodSetting)
_ADDRESS = "--broker-address IP"


def is_submitted(options: RunOptions) -> bool:
    """Whether the cluster works the job, not this process."""
    return options.coordinator == CLUSTER and is_cluster(options.backend)


def read_cluster_setting(options: RunOptions, cwd: Path, *, launches: bool = True) -> ClusterSetting | None:
    """Return where in a cluster Sandboxes run; None for other backends. To launch some, a broker address is required.

    Raises:
        ConfigError: an option is missing or invalid; the message names it.
    """
    if not is_cluster(options.backend):
        return None
    if options.coordinator != LOCAL:
        message = (
            "this command runs here, and jobs of --backend kubernetes run in the cluster: if Pods can reach this"
            " machine and the claim is mounted here, add --coordinator local"
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
        message = f"--claim-mount {options.claim_mount!r} is not usable: the directory does not exist"
        raise ConfigError(message)
    port, forbidden = parse_ports(options.broker_port)
    return ClusterSetting(
        namespace=options.namespace or "default",
        claim=Claim(options.claim, root),
        hosts=tuple(_address("--broker-address", text) for text in split_list(options.broker_address)),
        port=port,
        forbidden=forbidden,
        outside=tuple(split_list(options.outside)),
        name_servers=name_servers(),
        start_seconds=options.start_seconds,
        enforced=not options.allow_unenforced_network,
        pod=read_pod_setting(options.pod_setting, cwd),
    )


def split_list(texts: tuple[str, ...]) -> list[str]:
    """Return the values of a repeatable option; its variable separates them with commas or spaces."""
    return [part for text in texts for part in text.replace(",", " ").split()]


def _address(option: str, text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError as error:
        message = f"{option} {text!r} is not usable: give an IP address, since Sandboxes cannot resolve names"
        raise ConfigError(message) from error


def parse_ports(text: str | None) -> tuple[int, int]:
    """Parse `--broker-port`; zeros if it was not given.

    Raises:
        ConfigError: the text is not two ports.
    """
    if text is None:
        return 0, 0
    parts = text.split(",")
    if len(parts) != _PORTS or not all(part.isdecimal() and 0 < int(part) < 1 << 16 for part in parts):
        message = f"--broker-port {text!r} is not usable: give two ports: the broker's, and one that stays closed"
        raise ConfigError(message)
    return int(parts[0]), int(parts[1])


def read_pod_setting(named: str | None, cwd: Path) -> PodSetting:
    """Read the file that `--pod-setting` names.

    Raises:
        ConfigError: the file cannot be used.
    """
    if named is None:
        return PodSetting()
    try:
        return read_json(_POD_SETTING, read_plain(cwd / named, HAND_WRITTEN_BYTES))
    except (OSError, ValueError, WireError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        message = f"--pod-setting {named!r} is not usable: {reason}"
        raise ConfigError(message) from error
