"""Which files count where a command looks for its own by itself: those of the caller, where no Expert has written.

A file that was named is the user's word, whoever has written it. One that was found is not, as git learnt with
`safe.directory`.
"""

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from orchestrator.caller import own_uids
from orchestrator.mounted import mounted_on
from orchestrator.trail import Directory, Trail, follow


def why_not(file: Path) -> str | None:
    """Say why `file` does not count as found, as the rest of a sentence about it; None if it does.

    Raises:
        FileNotFoundError: nothing is there. It must not be opened then: where all may write, somebody may put it there.
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
    return mounted_on(trail) or next(strange(trail, trail.status, own_uids()), None)


def strange(trail: Trail, status: os.stat_result, own: frozenset[int]) -> Iterator[str]:
    """Give each reason for which a file is not of the users `own`, or could be another's; `status` is the file's."""
    for link in trail.links:
        if link.status.st_uid not in own:
            yield f"is reached through the link {link.path}, which belongs to user {link.status.st_uid}"
        yield from _strange_directory(link.above[-1], own)
    if status.st_uid not in own:
        yield f"belongs to user {status.st_uid}, and not to you"
    if status.st_mode & stat.S_IWOTH:
        yield "is writable for everybody"
    if status.st_nlink > 1 and status.st_uid != 0:
        yield "has another name (a hard link), which may be in a workspace"
    yield from _strange_directory(trail.above[-1], own)


def _strange_directory(directory: Directory, own: frozenset[int]) -> Iterator[str]:
    status = directory.status
    if status.st_uid not in own:
        yield f"is in {directory.path}, which belongs to user {status.st_uid}, and not to you"
    # In a sticky directory, as /tmp, nobody can replace the files of others; nor in one mounted read-only.
    if status.st_mode & stat.S_IWOTH and not (status.st_mode & stat.S_ISVTX or directory.is_read_only):
        yield f"is in {directory.path}, where everybody may replace it"
