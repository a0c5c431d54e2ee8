"""What a Sandbox finds out about its environment. It reports this before any code of an Expert runs."""

from collections.abc import Iterator

from orchestrator.wire.frozen import Frozen

UNFILTERED = (
    "the runtime cannot filter system calls here: a Sandbox's tools may make those that the engine allows, such as for"
    " user namespaces"
)

NEWEST_LANDLOCK = 6
"""The first Landlock ABI that supports every rule which keeps the tools of a Sandbox apart."""

_SINCE = (
    (1, "files and processes"),
    (3, "truncating files"),
    (4, "TCP ports"),
    (NEWEST_LANDLOCK, "signals and abstract sockets"),
)


class Facts(Frozen):
    """The protections and limits of one Sandbox, as measured inside it.

    `landlock` is the usable ABI, 0 for none; `seccomp` is whether the engine filters system calls, `filtered` whether
    the runtime does; `profile` is whether AppArmor or SELinux enforces a profile.
    `capabilities` is whether its processes have capabilities or could gain them. `memory` is in bytes, `cpus` in cores,
    `pids` in processes, `files` in open files per process; None means no limit.
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
    filtered: bool = False


class Inodes(Frozen):
    """The directories of a Sandbox, identified by device and inode number (from `stat`) instead of path."""

    state: tuple[int, int]
    workspace: tuple[int, int]


def left_open(landlock: int) -> tuple[str, ...]:
    """The accesses that this Landlock ABI does not restrict between the tools of one Sandbox (`man 7 landlock`)."""
    return tuple(what for since, what in _SINCE if landlock < since)


def shortfall(landlock: int) -> str | None:
    """The same as one sentence; None if everything is restricted."""
    if not (missing := left_open(landlock)):
        return None
    return f"this kernel (Landlock ABI {landlock}) does not isolate a Sandbox's tools in: {', '.join(missing)}"


def unprotected(facts: Facts) -> Iterator[str]:
    """Yield a sentence for each protection that the runtime cannot set for itself here."""
    if (missing := shortfall(facts.landlock)) is not None:
        yield missing
    if not facts.filtered:
        yield UNFILTERED
