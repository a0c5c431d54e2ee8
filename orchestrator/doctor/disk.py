"""Directories that a job writes to: facts about each, and what they mean."""

import os
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from orchestrator.doctor.finding import Area, Finding, ok, problem, warning
from orchestrator.units import amount

_NEEDED = 16 * 1024**2
_COMFORTABLE = 1024**3
"""Bytes. A job's records and files rarely need more; with less than `_NEEDED` even a short job may fail."""

_IN_MEMORY = frozenset({"tmpfs", "ramfs"})
_SHARED = frozenset({"nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs"})
"""File systems on which locks and renames of two machines may not see each other."""

_MOUNTS = Path("/proc/self/mountinfo")
_TYPE_AFTER = "-"


@dataclass(frozen=True, slots=True)
class DirectoryFacts:
    """A directory, or the nearest existing one above it if it does not exist yet.

    `owner` is a user id, `mode` the permission bits, `free` the bytes that this process may use, `kind` the type of its
    file system, empty if it is not known.
    """

    path: Path
    exists: bool
    is_directory: bool
    owner: int
    mode: int
    is_writable: bool
    free: int
    kind: str = ""


def read_directory(path: Path) -> DirectoryFacts:
    """Look at a directory. This may hang on a file system of a network.

    Raises:
        OSError: neither it nor a directory above can be inspected.
    """
    absolute = Path(os.path.abspath(path))  # noqa: PTH100 - links are not resolved
    nearest = next(each for each in (absolute, *absolute.parents) if os.path.lexists(each))
    status = nearest.stat()
    return DirectoryFacts(
        path=absolute,
        exists=nearest == absolute,
        is_directory=stat.S_ISDIR(status.st_mode),
        owner=status.st_uid,
        mode=stat.S_IMODE(status.st_mode),
        is_writable=os.access(nearest, os.W_OK | os.X_OK),
        free=shutil.disk_usage(nearest).free,
        kind=_file_system(nearest),
    )


def directory_findings(area: Area, check: str, facts: DirectoryFacts, caller: int, remedy: str) -> Iterator[Finding]:
    """Yield what is to say about a directory in which user `caller` must be able to write.

    `remedy` is how to use another directory.
    """
    path, place = facts.path, _describe(facts)
    if not facts.is_directory:
        yield problem(area, check, f"{path} is, or is below, something that is not a directory", remedy)
    elif not facts.is_writable:
        yield problem(area, check, f"user {caller} cannot write to {place}", f"change its owner or mode, or {remedy}")
    elif facts.exists and facts.owner not in {caller, 0} and not facts.mode & stat.S_ISVTX:
        yield problem(
            area, check, f"{place} belongs to another user, and you are user {caller}", f"remove it, or {remedy}"
        )
    else:
        yield ok(area, check, place)
    if facts.free < _COMFORTABLE:
        make = problem if facts.free < _NEEDED else warning
        yield make(
            area, f"{check} space", f"{amount_left(facts.free)} left for {path}", f"free some space, or {remedy}"
        )
    if facts.kind in _IN_MEMORY and area is Area.STORE:
        yield warning(area, f"{check} disk", f"{path} is in memory ({facts.kind}): a restart loses it", remedy)
    if facts.kind in _SHARED:
        shared = f"{path} is on a shared file system ({facts.kind}): use it from one machine at a time"
        yield warning(area, f"{check} disk", shared, remedy)


def amount_left(free: int) -> str:
    """Return a number of free bytes, with as many digits as a person reads."""
    return f"{free / _COMFORTABLE:.1f} GiB" if free >= _COMFORTABLE else amount(free // 1024**2 * 1024**2)


def _describe(facts: DirectoryFacts) -> str:
    state = f"owner {facts.owner}, mode {facts.mode:04o}" if facts.exists else "does not exist yet and can be made"
    kind = f", {facts.kind}" if facts.kind else ""
    return f"{facts.path} ({state}{kind}, {amount_left(facts.free)} free)"


def _file_system(path: Path) -> str:
    """Return the type of the file system at `path` (`man 5 proc_pid_mountinfo`); empty where Linux's /proc is not."""
    device = path.stat().st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    try:
        lines = _MOUNTS.read_text(errors="replace").splitlines()
    except OSError:
        return ""
    for line in lines:
        fields = line.split(" ")
        if fields[2] == wanted and _TYPE_AFTER in fields:
            return fields[fields.index(_TYPE_AFTER) + 1]
    return ""
