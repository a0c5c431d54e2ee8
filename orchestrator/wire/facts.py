"""What a Sandbox finds around itself when it starts, told before anything of an Expert runs in it."""

from orchestrator.wire.frozen import Frozen

NEWEST_LANDLOCK = 6
"""The ABI that brought the last of what keeps the tools of a Sandbox apart."""

_SINCE = (
    (1, "files and processes"),
    (3, "truncating files"),
    (4, "TCP ports"),
    (NEWEST_LANDLOCK, "signals and abstract sockets"),
)


class Facts(Frozen):
    """What holds in one Sandbox, as it was found there.

    `landlock` is the ABI that can be used, 0 for none; `profile` whether AppArmor or SELinux enforces one.
    `capabilities` says whether its processes have any, or could get some. `memory` is bytes, `cpus` cores, `files`
    how many each process may have open; None is no limit.
    """

    landlock: int = 0
    seccomp: bool = False
    profile: bool = False
    no_new_privileges: bool = False
    capabilities: bool = True
    uid: int = 0
    memory: int | None = None
    pids: int | None = None
    cpus: float | None = None
    files: int | None = None


class Inodes(Frozen):
    """Which directories a Sandbox has, whatever they are called: device and number on it, as `stat` gives them."""

    state: tuple[int, int]
    workspace: tuple[int, int]


def left_open(landlock: int) -> tuple[str, ...]:
    """What this ABI of Landlock does not keep apart between the tools of one Sandbox (`man 7 landlock`)."""
    return tuple(what for since, what in _SINCE if landlock < since)


def shortfall(landlock: int) -> str | None:
    """Say so in a sentence; None where nothing is left open."""
    if not (missing := left_open(landlock)):
        return None
    return f"this kernel (Landlock ABI {landlock}) does not keep the tools of a Sandbox apart in: {', '.join(missing)}"
