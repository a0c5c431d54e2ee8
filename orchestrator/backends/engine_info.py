"""Capabilities of the engine that runs Sandboxes; pure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

from orchestrator.errors import BackendUnavailableError
from orchestrator.sandbox.api import LinkKind, User

_ROOT = User(0, 0)


class LinkChoice(NamedTuple):
    """A link, and the reason for it as a person reads it."""

    link: LinkKind
    reason: str


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """An engine that runs Sandboxes.

    `owner` is the user id that owns a rootless engine; outside, its user 0 is that user. None for an engine of root.
    `runtimes` are the valid names for --runtime-class. `warnings` are the engine's own, about what it lacks. `id`
    identifies the engine, `kernel` is the release of its kernel, and `cores` and `memory`, in bytes, are those of its
    machine; empty or 0 if it does not report them. `is_podman` is whether it is Podman, behind Docker's API. `link` is
    that of its Sandboxes, None if it has no choice. `address` is where it answers, `cgroups` the version of its control
    groups; empty if it does not report them.
    """

    name: str
    isolates: bool = True
    owner: int | None = None
    runtimes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    id: str = ""
    kernel: str = ""
    cores: int = 0
    memory: int = 0
    is_podman: bool = False
    link: LinkChoice | None = None
    address: str = ""
    cgroups: str = ""


PROCESSES = EngineInfo("processes of this machine", isolates=False)


def docker_engine_info(info: Mapping[str, Any], version: Mapping[str, Any], owner: int | None) -> EngineInfo:
    """Read an engine's answers (Engine API, SystemInfo and SystemVersion); `owner` is the owner of its socket.

    A remote engine shares no files and so no users with this machine; its `owner` is None.

    Docker reports that it is rootless in its security options, Podman in a separate field.
    """
    components = version.get("Components") or [{"Name": "Docker"}]
    name = str(components[0].get("Name", "Docker")).removesuffix(" Engine").replace("Engine", "Docker")
    rootless = info.get("Rootless") is True or "name=rootless" in (info.get("SecurityOptions") or ())
    return EngineInfo(
        name=f"{name} {version.get('Version', '')}".strip(),
        owner=owner if rootless else None,
        runtimes=tuple(sorted(info.get("Runtimes") or {})),
        warnings=tuple(re.sub(r"^WARNING: ", "", str(warning)) for warning in info.get("Warnings") or ()),
        # Podman makes a new one for each answer.
        id="" if name == "Podman" else str(info.get("ID") or ""),
        kernel=str(info.get("KernelVersion") or ""),
        cores=int(info.get("NCPU") or 0),
        memory=int(info.get("MemTotal") or 0),
        cgroups=str(info.get("CgroupVersion") or ""),
        is_podman=name == "Podman",
    )


def user_inside(user: User, engine_info: EngineInfo) -> User:
    """Return the user that `user` of this machine is in a Sandbox.

    In a rootless engine its owner is user 0, without any power over this machine; no other user of this machine can
    be used.

    Raises:
        BackendUnavailableError: `user` is not the owner of the rootless engine.
    """
    if engine_info.owner is None:
        return user
    if user.uid != engine_info.owner:
        message = (
            f"the rootless engine {engine_info.name} belongs to user {engine_info.owner}, so no Sandbox can run as user"
            f" {user.uid}: use a workspace of user {engine_info.owner}"
        )
        raise BackendUnavailableError(message)
    return _ROOT


@runtime_checkable
class InspectedBackend(Protocol):
    """A backend that reports its engine, together with what it found out about it so far."""

    async def engine_info(self) -> EngineInfo:
        """Return the engine's capabilities and its owner.

        Raises:
            BackendUnavailableError: the engine cannot be reached.
        """


def choose_link(wanted: LinkKind, runtime_class: str | None, engine_info: EngineInfo) -> LinkChoice | None:
    """Return the link that a Sandbox must get, and why; None if its engine has no choice.

    `wanted` is what the job demands, AUTO for nothing.
    """
    if engine_info.link is None:
        return None
    if wanted is not LinkKind.AUTO:
        return LinkChoice(wanted, "--link demands it")
    if runtime_class is not None:
        return LinkChoice(LinkKind.STREAM, f"the runtime {runtime_class} may have its own kernel")
    return engine_info.link


def require_runtime(name: str | None, engine_info: EngineInfo) -> None:
    """Check that an engine has a runtime of that name; None means its default.

    Raises:
        BackendUnavailableError: it does not; the message lists those it has.
    """
    if name is not None and name not in engine_info.runtimes:
        known = ", ".join(engine_info.runtimes) or "none"
        message = f"{engine_info.name} has no runtime {name!r} for --runtime-class; it has {known}"
        raise BackendUnavailableError(message)
