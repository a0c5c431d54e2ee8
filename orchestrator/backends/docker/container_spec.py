"""A SandboxSpec as the Engine API's create body; pure."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from orchestrator.sandbox.api import LinkKind, SandboxSpec
from orchestrator.sandbox.layout import Mount, Source, host_path, mounts, runtime_arguments
from orchestrator.wire.layout import WORKSPACE

_NANO = 1_000_000_000
_STOP_SECONDS = 10
_LOG = {"Type": "json-file", "Config": {"max-size": "64m", "max-file": "4"}}
"""Rotation loses lines that were not read in time, so the limit is high; `mode=non-blocking` drops lines (moby)."""

_NO_LOG = {"Type": "none", "Config": {}}
"""The frames of a link are no log, and the engine would take four times as long for each."""


def create_body(
    spec: SandboxSpec, command: Sequence[str] | None = None, *, shares_files: bool = True
) -> dict[str, Any]:
    """Describe the container (Engine API 1.41, ContainerCreate). `command` replaces the image's entrypoint.

    `shares_files` is whether the engine has the files of this machine, also those outside of the workspace.

    Nothing in it reveals which Expert will run: no environment, no query, the same mounts for all Sandboxes of a job.
    No init process is used: a child could open its stdout and forge events, so the runtime itself is PID 1.
    """
    body: dict[str, Any] = {
        "Image": spec.image,
        "User": f"{spec.user.uid}:{spec.user.gid}",
        "Cmd": list(runtime_arguments(spec)),
        "WorkingDir": "/",
        "Env": [],
        "Labels": dict(spec.labels),
        # Without any network of the engine, runc still makes a loopback device. gVisor does not, and skills need it.
        "NetworkDisabled": spec.link is not LinkKind.STREAM,
        "StopTimeout": _STOP_SECONDS,
        "HostConfig": _host_config(spec, shares_files=shares_files),
    }
    if spec.link is LinkKind.STREAM:
        # Stdin stays open when an orchestrator goes away, so the next one can attach.
        body |= {"OpenStdin": True, "StdinOnce": False}
    if command is not None:
        body |= {"Entrypoint": list(command), "Cmd": []}
    return body


def mounted(spec: SandboxSpec) -> Iterator[tuple[str, str, str]]:
    """Yield each path of the Sandbox's own, its source, and its mode: read-write, read-only, empty or memory."""
    host = _host_config(spec, shares_files=True)
    for mount in host["Mounts"]:
        mode, source = "read-only" if mount["ReadOnly"] else "read-write", mount.get("Source", "its own volume")
        yield mount["Target"], source, "empty" if source == os.devnull else mode
    for path in host["Tmpfs"]:
        yield path, "tmpfs", "memory"
    yield "/", spec.image, "read-only"


def _host_config(spec: SandboxSpec, *, shares_files: bool) -> dict[str, Any]:
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
        "Tmpfs": {
            str(mount.target): f"rw,nosuid,nodev,exec,size={limits.tmp},mode=1777"
            for mount in mounts(spec)
            if mount.source is Source.MEMORY
        },
        "Mounts": [
            _volume(mount) if mount.source is Source.VOLUME else _bind(spec, mount)
            for mount in mounts(spec)
            if mount.source is not Source.MEMORY and (shares_files or mount.source is not Source.MARK)
        ],
        "LogConfig": _NO_LOG if spec.link is LinkKind.STREAM else _LOG,
        "RestartPolicy": {"Name": "no"},
        "AutoRemove": False,
        **({} if spec.runtime_class is None else {"Runtime": spec.runtime_class}),
    }


def _ulimit(name: str, value: int) -> dict[str, str | int]:
    return {"Name": name, "Soft": value, "Hard": value}


def _volume(mount: Mount) -> dict[str, Any]:
    """Describe an anonymous volume: the engine removes it with the container."""
    return {"Type": "volume", "Target": str(mount.target), "ReadOnly": mount.read_only}


def _bind(spec: SandboxSpec, mount: Mount) -> dict[str, Any]:
    if mount.source is Source.WORKSPACE and spec.volume is not None:
        return named_volume(spec.volume)
    if mount.source is Source.PACKAGE_VOLUME:
        return named_volume(spec.package_volumes[mount.target.name], mount.target, read_only=mount.read_only)
    return {
        "Type": "bind",
        "Source": str(_source(spec, mount)),
        "Target": str(mount.target),
        "ReadOnly": mount.read_only,
        "BindOptions": {"Propagation": "rprivate"},
    }


def named_volume(name: str, target: PurePosixPath = WORKSPACE, *, read_only: bool = False) -> dict[str, Any]:
    """Describe the mount of a volume, by default as the workspace.

    Without a name it is a new one, removed with its container.
    """
    named = {"Source": name} if name else {}
    return {"Type": "volume", **named, "Target": str(target), "ReadOnly": read_only}


def _source(spec: SandboxSpec, mount: Mount) -> Path:
    if mount.source is Source.PROTECTED and spec.copies is not None and mount.sub_path is not None:
        # The engine follows a link at the source, and another job may use the workspace without this guard.
        return spec.copies / mount.sub_path
    return host_path(spec, mount) or Path(os.devnull)
