"""What a place says of itself where Sandboxes run; pure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.errors import BackendUnavailableError
from orchestrator.sandbox import User

_ROOT = User(0, 0)


@dataclass(frozen=True, slots=True)
class Ground:
    """A place where Sandboxes run.

    `owner` is the user id that a rootless engine belongs to and that its user 0 is outside; None where it is root's.
    `runtimes` are the names that --runtime-class may have. `warnings` are what the engine itself says that it lacks.
    """

    name: str
    isolates: bool = True
    owner: int | None = None
    runtimes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


PROCESSES = Ground("processes of this machine", isolates=False)


def docker_ground(info: Mapping[str, Any], version: Mapping[str, Any], owner: int) -> Ground:
    """Read an engine's answers (Engine API, SystemInfo and SystemVersion); `owner` is whom its socket belongs to.

    Docker tells that it is rootless among its security options, Podman in a field of its own.
    """
    components = version.get("Components") or [{"Name": "Docker"}]
    name = str(components[0].get("Name", "Docker")).removesuffix(" Engine").replace("Engine", "Docker")
    rootless = info.get("Rootless") is True or "name=rootless" in (info.get("SecurityOptions") or ())
    return Ground(
        name=f"{name} {version.get('Version', '')}".strip(),
        owner=owner if rootless else None,
        runtimes=tuple(sorted(info.get("Runtimes") or {})),
        warnings=tuple(re.sub(r"^WARNING: ", "", str(said)) for said in info.get("Warnings") or ()),
    )


def user_inside(user: User, ground: Ground) -> User:
    """As whom `user` of this machine appears in a Sandbox.

    In a rootless engine its owner is user 0, without any power over this machine, and nobody else of this machine is
    anybody.

    Raises:
        BackendUnavailableError: it is somebody whom the engine does not know.
    """
    if ground.owner is None:
        return user
    if user.uid != ground.owner:
        message = (
            f"the rootless engine {ground.name} belongs to user {ground.owner}, and its Sandboxes can be nobody else of"
            f" this machine, but this one is to run as user {user.uid}: use a workspace of user {ground.owner}"
        )
        raise BackendUnavailableError(message)
    return _ROOT


def require_runtime(name: str | None, ground: Ground) -> None:
    """See that an engine has a runtime of that name; None asks for its own default.

    Raises:
        BackendUnavailableError: it has not; lists those it has.
    """
    if name is not None and name not in ground.runtimes:
        known = ", ".join(ground.runtimes) or "none"
        message = f"{ground.name} has no runtime {name!r} for --runtime-class; it has {known}"
        raise BackendUnavailableError(message)
