"""What each tool of a Sandbox may reach (decisions 31 and 32). Pure; `landlock` enforces it."""

import sys
from dataclasses import dataclass
from pathlib import Path

from orchestrator.runtime.tool_context import ToolContext
from orchestrator.wire import layout
from orchestrator.wire.identity import identify

_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc", "/opt", "/proc", "/sys")
_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty")
_SHARED, _SKILLS = Path(layout.SHARED), Path(layout.SKILLS)


@dataclass(frozen=True, slots=True)
class Domain:
    """All that processes in it may reach; a path stands for everything below it, and one that is missing for nothing.

    `read` may be read and executed; `write` also changed. `devices` may be read and written, not replaced. `connect`
    are TCP ports it may connect to, and then it may bind none; None leaves TCP alone. Processes outside can neither
    be signalled nor looked into (memory, environ, open files), and abstract unix sockets outside are out of reach.
    """

    read: tuple[Path, ...] = ()
    write: tuple[Path, ...] = ()
    devices: tuple[Path, ...] = ()
    connect: tuple[int, ...] | None = None


def exec_home(context: ToolContext) -> Path:
    """HOME and TMPDIR of `exec`."""
    return _temporary(context.state) / "exec"


def skill_home(context: ToolContext, skill_name: str) -> Path:
    """HOME, TMPDIR and working directory of a skill; no name leads out, and no two names share one."""
    readable = "".join(char if char.isascii() and char.isalnum() else "-" for char in skill_name)[:32]
    above = _SKILLS if _in_container(context.state) else _temporary(context.state) / "skills"
    return above / f"{readable}-{identify(skill_name)[:8]}"


def exec_domain(context: ToolContext) -> Domain:
    """What commands reach: the workspace, their own home and /tmp; any port, since they start and call local servers.

    Shared memory is theirs alone: Python's multiprocessing needs it. Outside a container all users share /tmp.
    """
    shared = (_SHARED,) if _in_container(context.state) else ()
    return _domain(context, (exec_home(context), *shared, Path("/dev/shm")))  # noqa: S108 - granted, not made


def skill_domain(context: ToolContext, home: Path, proxy_port: int | None) -> Domain:
    """What a skill reaches: the workspace, its own home, and of TCP only its proxy where it has one."""
    return _domain(context, (home,), connect=() if proxy_port is None else (proxy_port,))


def install_home(state: Path) -> Path:
    """HOME, TMPDIR, caches and working directory of what installs packages."""
    return _temporary(state) / "install"


def install_domain(packages: Path, home: Path, proxy_port: int, path: str) -> Domain:
    """What an installer reaches: the packages directory, its own home, and its proxy."""
    return Domain(
        read=_readable(path), write=(packages, home), devices=tuple(map(Path, _DEVICES)), connect=(proxy_port,)
    )


def _readable(path: str) -> tuple[Path, ...]:
    # A process backend may run from a virtual environment, with tools anywhere on its PATH.
    found = (*path.split(":"), sys.prefix, sys.base_prefix)
    return tuple(Path(path) for path in dict.fromkeys((*_SYSTEM, *found)) if path.startswith("/"))


def _domain(context: ToolContext, own: tuple[Path, ...], connect: tuple[int, ...] | None = None) -> Domain:
    readable = (*_readable(context.path), context.packages)
    return Domain(
        read=tuple(path for path in readable if not context.state.is_relative_to(path)),
        write=(context.workspace, *own),
        devices=tuple(map(Path, _DEVICES)),
        connect=connect,
    )


def _in_container(state: Path) -> bool:
    return state == Path(layout.STATE)


def _temporary(state: Path) -> Path:
    return _SHARED if _in_container(state) else state / "tmp"
