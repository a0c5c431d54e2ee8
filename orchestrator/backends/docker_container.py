"""A SandboxSpec as the Engine API's create body; pure."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from orchestrator.sandbox import SandboxSpec, runtime_arguments
from orchestrator.wire.link import GATE_NAME

WORKSPACE = PurePosixPath("/workspace")
STATE = PurePosixPath("/run/perstack")
PACKAGES = PurePosixPath("/packages")

_TEMPORARY = ("/tmp", "/run/skills")  # noqa: S108 - the container's own
"""In memory: what commands share, and where each skill has a place of its own that commands cannot reach."""

_NANO = 1_000_000_000
_STOP_SECONDS = 10
_LOG = {"Type": "json-file", "Config": {"max-size": "64m", "max-file": "4"}}
"""Rotation loses what nobody read in time, so the room is generous; `mode=non-blocking` would drop lines (moby)."""


def create_body(spec: SandboxSpec, command: Sequence[str] | None = None) -> dict[str, Any]:
    """Describe the container (Engine API 1.41, ContainerCreate). `command` replaces the image's entrypoint.

    Nothing in it tells which Expert will run: no environment, no query, the same mounts for all of a job.
    There is no init process: a child could open its stdout and forge events, so the runtime itself is PID 1.
    """
    body: dict[str, Any] = {
        "Image": spec.image,
        "User": f"{spec.user.uid}:{spec.user.gid}",
        "Cmd": list(runtime_arguments(spec)),
        "WorkingDir": "/",
        "Env": [],
        "Labels": dict(spec.labels),
        "NetworkDisabled": True,
        "StopTimeout": _STOP_SECONDS,
        "HostConfig": _host_config(spec),
    }
    if command is not None:
        body |= {"Entrypoint": list(command), "Cmd": []}
    return body


def mounted(spec: SandboxSpec) -> Iterator[tuple[str, str, str]]:
    """Give each path of the Sandbox's own, what is there, and how: read-write, read-only, empty or memory."""
    host = _host_config(spec)
    for mount in host["Mounts"]:
        mode = "read-only" if mount["ReadOnly"] else "read-write"
        yield mount["Target"], mount["Source"], "empty" if mount["Source"] == os.devnull else mode
    for path in host["Tmpfs"]:
        yield path, "tmpfs", "memory"
    yield "/", spec.image, "read-only"


def _host_config(spec: SandboxSpec) -> dict[str, Any]:
    limits = spec.limits
    return {
        "NetworkMode": "none",
        "ReadonlyRootfs": True,
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges"],
        "IpcMode": "private",
        "PidsLimit": limits.pids,
        "Memory": limits.memory,
        "MemorySwap": limits.memory,
        "NanoCpus": round(limits.cpus * _NANO),
        "Ulimits": [_ulimit("nofile", limits.files), _ulimit("core", 0)],
        "Tmpfs": dict.fromkeys(_TEMPORARY, f"rw,nosuid,nodev,exec,size={limits.tmp},mode=1777"),
        "Mounts": _mounts(spec),
        "LogConfig": _LOG,
        "RestartPolicy": {"Name": "no"},
        "AutoRemove": False,
        **({} if spec.runtime_class is None else {"Runtime": spec.runtime_class}),
    }


def _ulimit(name: str, value: int) -> dict[str, str | int]:
    return {"Name": name, "Soft": value, "Hard": value}


def _mounts(spec: SandboxSpec) -> list[dict[str, Any]]:
    return [
        _bind(spec.workspace, WORKSPACE, read_only=False),
        _bind(spec.state, STATE, read_only=False),
        # Its owner may be the user inside, who cannot open it again: nothing changes a mode in a read-only mount.
        _bind(spec.state / GATE_NAME, STATE / GATE_NAME, read_only=True),
        *([] if spec.packages is None else [_bind(spec.packages, PACKAGES, read_only=not spec.installs)]),
        # The engine follows a link at its source, and another job may have the workspace without this guard.
        *(_bind((spec.copies or spec.workspace) / file, WORKSPACE / file, read_only=True) for file in spec.read_only),
        *(_bind(Path("/dev/null"), WORKSPACE / file, read_only=True) for file in spec.hidden),
    ]


def _bind(source: Path, target: PurePosixPath, *, read_only: bool) -> dict[str, Any]:
    return {
        "Type": "bind",
        "Source": str(source),
        "Target": str(target),
        "ReadOnly": read_only,
        "BindOptions": {"Propagation": "rprivate"},
    }
