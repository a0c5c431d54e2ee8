"""Measure what the kernel and the engine enforce in this Sandbox."""

import os
import resource
from contextlib import suppress
from pathlib import Path

from orchestrator.runtime import landlock
from orchestrator.wire.facts import Facts, Inodes

_CGROUP = Path("/sys/fs/cgroup")
_UNLIMITED = 1 << 62
"""Without a limit, control groups version 1 report a number near the largest possible one."""
_FILTER = "2"
_SELINUX_PARTS = 4
_CAPABILITY_SETS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")


def probe() -> Facts:
    """Measure; what cannot be read counts as not enforced."""
    status = _status()
    return Facts(
        landlock=landlock.abi(),
        seccomp=status.get("Seccomp") == _FILTER,
        profile=_is_confining(_text(Path("/proc/self/attr/current"))),
        no_new_privileges=status.get("NoNewPrivs") == "1",
        capabilities=any(int(status.get(name, "1"), 16) for name in _CAPABILITY_SETS),
        uid=os.getuid(),
        memory=_limit("memory/memory.limit_in_bytes", "memory.max"),
        pids=_limit("pids/pids.max", "pids.max"),
        cpus=_cpus(),
        files=_files(),
    )


def probe_inodes(state: Path, workspace: Path) -> Inodes | None:
    """Identify these directories; None if they cannot be inspected."""
    try:
        own, files = state.stat(), workspace.stat()
    except OSError:
        return None
    return Inodes(state=(own.st_dev, own.st_ino), workspace=(files.st_dev, files.st_ino))


def _is_confining(label: str) -> bool:
    """Whether a label belongs to a security profile: AppArmor's `name (enforce)`, SELinux's `user:role:type:level`."""
    return "(enforce)" in label or (label.count(":") >= _SELINUX_PARTS - 1 and "unconfined" not in label)


def _status() -> dict[str, str]:
    fields = (line.partition(":") for line in _text(Path("/proc/self/status")).splitlines())
    return {name: value.strip() for name, _, value in fields}


def _limit(first: str, second: str) -> int | None:
    """Read a limit from control groups version 1, else version 2."""
    text = (_text(_CGROUP / first) or _text(_CGROUP / second)).strip()
    return int(text) if text.isdecimal() and int(text) < _UNLIMITED else None


def _cpus() -> float | None:
    of_second = _text(_CGROUP / "cpu.max").split()
    quota, period = of_second or (_text(_CGROUP / f"cpu/cpu.cfs_{what}_us").strip() for what in ("quota", "period"))
    return int(quota) / int(period) if quota.isdecimal() and period.isdecimal() else None


def _files() -> int | None:
    # The hard limit: a process may raise its own soft limit up to that.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if hard == resource.RLIM_INFINITY else hard


def _text(path: Path) -> str:
    with suppress(OSError):
        return path.read_text(encoding="ascii", errors="replace")
    return ""
