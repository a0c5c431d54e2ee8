"""The user's files: their directory, its owner, and the files in it that no Expert may change or see."""

import errno
import os
import re
import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from orchestrator.config.file import CONFIG_NAME
from orchestrator.config.lock_file import LOCK_BYTES, LOCK_NAME
from orchestrator.disk.caller import own_uids
from orchestrator.disk.containment import is_within
from orchestrator.disk.directory import Inode, inode_of
from orchestrator.disk.home_directories import of_a_home
from orchestrator.disk.mount_registry import mounted_above
from orchestrator.disk.path_trail import Trail, follow
from orchestrator.disk.plain_file import HAND_WRITTEN_BYTES
from orchestrator.errors import ConfigError
from orchestrator.sandbox.api import User
from orchestrator.wire.layout import WORKSPACE

NOBODY = User(65532, 65532)
"""The owner of a workspace that root makes: the conventional unprivileged user of container images."""

READ_ONLY = {CONFIG_NAME: HAND_WRITTEN_BYTES, LOCK_NAME: LOCK_BYTES}
"""The files in it that grant authority, by name, with the most bytes that such a file may have."""
_HIDDEN = re.compile(r"\.env[\w.+@~-]*")
_MOST_HIDDEN = 32


@dataclass(frozen=True, slots=True)
class WorkspaceVolume:
    """A volume of an engine, by the engine's own id, that Sandboxes mount in place of the directory.

    It `is_copy` if it is filled from the directory and copied back; otherwise it is the user's, and kept.
    """

    name: str
    engine: str = ""
    is_copy: bool = False


@dataclass(frozen=True, slots=True)
class Workspace:
    """A directory that is safe to mount, and its owner.

    `read_only` grant authority and may not be changed by an Expert, `hidden` contain secrets; both are relative paths.
    An `absent` one must still be made; `remedy` is what to do if it cannot be, `recheck` checks it again.
    `inode` identifies the directory that was checked, even if it was replaced since. In a `volume` that is no copy the
    path is the one inside.
    """

    path: Path
    user: User
    read_only: tuple[Path, ...] = ()
    hidden: tuple[Path, ...] = ()
    absent: bool = False
    remedy: str = "name another with --workspace"
    volume: WorkspaceVolume | None = None
    # How it became known is no part of its identity.
    inode: Inode | None = field(default=None, compare=False)
    recheck: Callable[[], "Workspace"] | None = field(default=None, compare=False, repr=False)

    @property
    def mounted_inode(self) -> Inode | None:
        """What identifies the workspace inside a Sandbox; None if that is not known."""
        return self.inode if self.volume is None else None


def in_volume(name: str, run_as: User | None) -> Workspace:
    """Return the workspace in a volume that the user names; without `run_as` Sandboxes run as for a new directory."""
    return Workspace(Path(WORKSPACE), run_as or _caller(), volume=WorkspaceVolume(name))


def prepare(
    path: Path, run_as: User | None, *, make: bool = False, isolated: bool = True, sockets: Iterable[Path] = ()
) -> Workspace:
    """Check the directory at `path`; with `make` it may be absent, and will belong to the caller, or `NOBODY` if root.

    Sandboxes run as its owner, and never as root. Without isolation they run as the caller, even as root.
    `sockets` are those of engines, which no Expert may get.

    Raises:
        ConfigError: it does not exist, is not a directory, not ours to mount, belongs to root without `run_as`, or a
            link on the way to it may be an Expert's.
    """
    if not isolated:
        run_as = run_as or User(os.geteuid(), os.getegid())
    trail = require_own_way(path)
    # From here on, use the real path, which has no link in it.
    real, status = trail.path, trail.status
    if status is None and make:
        owner = run_as or _caller()
        recheck = partial(prepare, path, run_as, make=True, isolated=isolated, sockets=tuple(sockets))
        return Workspace(real, owner, absent=True, recheck=recheck)
    if status is None:
        raise _unusable(path, os.strerror(errno.ENOENT))
    if not stat.S_ISDIR(status.st_mode):
        message = f"workspace {path} is not a directory; name one with --workspace"
        raise ConfigError(message)
    _refuse_too_much(real, sockets)
    user = run_as or User(status.st_uid, status.st_gid)
    if user.uid == 0 and isolated:
        message = (
            f"workspace {path} belongs to root, and Experts never run as root; "
            "give it to another user, or name one with --run-as UID"
        )
        raise ConfigError(message)
    if not _may_write(status, user):
        message = f"workspace {path} is not writable for user {user.uid}; change its owner or mode, or use --run-as"
        raise ConfigError(message)
    if os.geteuid() not in (0, user.uid):
        message = f"workspace {path} belongs to user {user.uid}, and you are user {os.geteuid()}; use one of your own"
        raise ConfigError(message)
    return Workspace(real, user, *_guarded(real), inode=inode_of(status))


def _caller() -> User:
    return NOBODY if os.geteuid() == 0 else User(os.geteuid(), os.getegid())


def require_own_way(path: Path) -> Trail:
    """Return where `path` leads, if only the caller or root decided that: no Expert, and no other user.

    Raises:
        ConfigError: it leads through a link of another user, or one in a directory that was mounted as a workspace;
            or it cannot be followed.
    """
    try:
        trail = follow(path)
    except OSError as error:
        raise _unusable(path, error.strerror or str(error)) from error
    own = own_uids()
    for link in trail.links:
        whose = None
        if (workspace := mounted_above(link.above)) is not None:
            whose = f"lies in {workspace}, which was mounted as a workspace, so an Expert may have made it"
        elif link.status.st_uid not in own:
            whose = f"belongs to user {link.status.st_uid}, and not to you"
        if whose is not None:
            message = f"{path} leads through the link {link.path}, which {whose}; name the target without it"
            raise ConfigError(message)
    return trail


def _unusable(path: Path, why: str) -> ConfigError:
    return ConfigError(f"workspace {path} cannot be used: {why}; make the directory or name another --workspace")


def keep_store_apart(workspace: Path, store: Path) -> None:
    """Keep job records out of every Expert's reach, and an Expert's files out of the records.

    Raises:
        ConfigError: one is in the other, or they are the same.
    """
    files, records = workspace.resolve(), store.resolve()
    if is_within(records, files) or is_within(files, records):
        inner, outer = (f"the store {store}", f"the workspace {workspace}")
        if not is_within(records, files):
            inner, outer = outer, inner
        message = f"{inner} is inside {outer}; name another with --storage or --workspace"
        raise ConfigError(message)


def _refuse_too_much(real: Path, sockets: Iterable[Path]) -> None:
    what = None
    if real == Path("/"):
        what = "all of this machine"
    elif (socket := next((each for each in sockets if is_within(each, real)), None)) is not None:
        what = f"the engine's socket {socket}, by which this machine can be taken over"
    else:
        what = of_a_home(real)
    if what is not None:
        message = f"workspace {real} contains {what}; name a separate directory with --workspace"
        raise ConfigError(message)


def _may_write(status: os.stat_result, user: User) -> bool:
    if user.uid == 0:
        return True
    needed = stat.S_IWUSR | stat.S_IXUSR
    if status.st_uid == user.uid:
        return status.st_mode & needed == needed
    if status.st_gid == user.gid:
        return status.st_mode & needed >> 3 == needed >> 3
    return status.st_mode & needed >> 6 == needed >> 6


def _guarded(real: Path) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    try:
        read_only = [Path(name) for name in READ_ONLY if _is_regular(real / name)]
        hidden = [_hideable(entry) for entry in sorted(real.glob(".env*")) if _is_regular(entry)]
    except OSError as error:
        message = f"workspace {real} cannot be listed: {error.strerror}; find out which program changes it, or its mode"
        raise ConfigError(message) from error
    if len(hidden) > _MOST_HIDDEN:
        message = f"workspace {real} has {len(hidden)} .env files, at most {_MOST_HIDDEN} can be hidden; remove some"
        raise ConfigError(message)
    return tuple(read_only), tuple(hidden)


def _hideable(path: Path) -> Path:
    """Return the name of a file that must be hidden.

    Raises:
        ConfigError: not every engine can mount at that name; an Expert may have put the file there.
    """
    if _HIDDEN.fullmatch(path.name) is None:
        message = f"{path} cannot be hidden from Experts under that name; rename it, or remove it if it is not yours"
        raise ConfigError(message)
    return Path(path.name)


def _is_regular(path: Path) -> bool:
    """Whether `path` is a plain file.

    Raises:
        ConfigError: it is a symbolic link, through which a mount would reach another file.
    """
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return False
    if stat.S_ISLNK(mode):
        message = f"{path} is a symbolic link, which cannot be protected from Experts; replace it with the file"
        raise ConfigError(message)
    return stat.S_ISREG(mode)
