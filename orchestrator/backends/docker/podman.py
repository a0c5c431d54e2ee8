"""What Podman does otherwise than Docker behind the same API, as far as a Sandbox depends on it."""

import asyncio
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from orchestrator.backends.docker.client import DockerClient
from orchestrator.http.errors import StatusError

_CLOSED_TMPFS = {
    "/var/tmp": "ro,nosuid,nodev,noexec,size=4k",  # noqa: S108 - a path inside
    "/run": "rw,nosuid,nodev,noexec,size=64k,mode=755",
}
"""In a container with a read-only root Podman mounts a writable, unbounded tmpfs at these places, unless one is named
(https://docs.podman.io/en/latest/markdown/podman-run.1.html#read-only-tmpfs); its API has no switch for it. The
Sandbox's own mounts are below /run, so that it stays writable for root, in 64 KiB."""

_BY_A_CLIENT = {"kill", "stop", "remove", "destroy", "restart"}
_EVENT_PAUSES = (0.0, 0.5)
"""Podman writes the event of a kill after the signal."""


def closed(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return a create body in which the places that Podman opens are closed or bounded; pure."""
    host = body["HostConfig"]
    return {**body, "HostConfig": {**host, "Tmpfs": {**_CLOSED_TMPFS, **host["Tmpfs"]}}}


def missing_source(body: Mapping[str, Any]) -> str | None:
    """Return the first source of a mount that does not exist on this machine. Podman 4 would make it, as root."""
    sources = (mount["Source"] for mount in body["HostConfig"]["Mounts"] if mount["Type"] == "bind")
    return next((source for source in sources if not Path(source).exists()), None)


async def ran_out_of_memory(engine: DockerClient, container: str, state: Mapping[str, Any]) -> bool:
    """Whether the kernel killed a container's first process, as far as Podman's events show.

    Podman reports `OOMKilled` since version 5 only (podman#21523). No process inside can send SIGKILL to the first one
    (pid_namespaces(7)), and each client that kills, stops or removes a container leaves an event. What remains is the
    kernel, for lack of memory, or a user of the engine's machine who kills the process itself.
    """
    for pause in _EVENT_PAUSES:
        await asyncio.sleep(pause)
        try:
            actions = await engine.actions(container, since=state["StartedAt"])
        except StatusError:
            # Podman may be configured to keep no events.
            return False
        if not is_unexplained(actions):
            return False
    return True


def is_unexplained(actions: Collection[str]) -> bool:
    """Whether the events of a killed container are complete and name no client that killed it; pure."""
    return "start" in actions and not _BY_A_CLIENT.intersection(actions)
