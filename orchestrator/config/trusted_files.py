"""Decide whether to trust files that a command finds by itself: only the caller's own, where no Expert could write.

A file that the user names is trusted regardless of its owner. A found file is not; git has the same rule with
`safe.directory`.
"""

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from orchestrator.disk.caller import own_uids
from orchestrator.disk.mount_registry import mounted_on
from orchestrator.disk.path_trail import Directory, Trail, follow


def why_untrusted(file: Path) -> str | None:
    """Return why `file` is not trusted, as the predicate of a sentence about it; None if it is trusted.

    Raises:
        FileNotFoundError: it does not exist. The caller must not open it then: another user may create it.
        ConfigError: the registry of mounted workspaces cannot be read.
    """
    try:
        trail = follow(file)
    except FileNotFoundError:
        raise
    except OSError as error:
        return f"cannot be reached: {error.strerror}"
    if trail.status is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(file))
    return mounted_on(trail) or next(reasons_for_distrust(trail, trail.status, own_uids()), None)


def reasons_for_distrust(trail: Trail, status: os.stat_result, own: frozenset[int]) -> Iterator[str]:
    """Yield each reason why a file is not owned by the users `own`, or others could change it; `status` is its own."""
    for link in trail.links:
        if link.status.st_uid not in own:
            yield f"is reached through the link {link.path}, which belongs to user {link.status.st_uid}"
        yield from _directory_distrust(link.above[-1], own)
    if status.st_uid not in own:
        yield f"belongs to user {status.st_uid}, and not to you"
    if status.st_mode & stat.S_IWOTH:
        yield "is writable by all users"
    if status.st_nlink > 1 and status.st_uid != 0:
        yield "has another name (a hard link), which may be in a workspace"
    yield from _directory_distrust(trail.above[-1], own)


def _directory_distrust(directory: Directory, own: frozenset[int]) -> Iterator[str]:
    status = directory.status
    if status.st_uid not in own:
        yield f"is in {directory.path}, which belongs to user {status.st_uid}, and not to you"
    # In a sticky directory such as /tmp, users cannot replace files of others; nor in one mounted read-only.
    if status.st_mode & stat.S_IWOTH and not (status.st_mode & stat.S_ISVTX or directory.is_read_only):
        yield f"is in {directory.path}, where all users may replace it"
