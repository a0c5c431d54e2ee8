"""The user's files: which directory, whose, and what in it no Expert may change or see."""

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import ConfigError
from orchestrator.sandbox import User

NOBODY = User(65532, 65532)
"""Who owns a workspace that root lets us make: the conventional unprivileged user of container images."""

_READ_ONLY = ("perstack.toml", "perstack.lock")


@dataclass(frozen=True, slots=True)
class Workspace:
    """A directory that is safe to mount, and the user whose it is.

    `read_only` grant authority and may not be changed by an Expert, `hidden` hold secrets; both are relative paths.
    One that is `absent` is still to be made.
    """

    path: Path
    user: User
    read_only: tuple[Path, ...] = ()
    hidden: tuple[Path, ...] = ()
    absent: bool = False


def prepare(path: Path, run_as: User | None, *, make: bool = False, isolated: bool = True) -> Workspace:
    """Look at the directory at `path`; with `make` it may be absent, and is the caller's then, or nobody's if root's.

    Sandboxes run as its owner, and never as root. Where nothing is isolated they run as the caller, whoever that is.

    Raises:
        ConfigError: it is not there, not a directory, not ours to mount, or belongs to root without `run_as`.
    """
    if not isolated:
        run_as = run_as or User(os.geteuid(), os.getegid())
    if make and not path.exists():
        owner = run_as or (NOBODY if os.geteuid() == 0 else User(os.geteuid(), os.getegid()))
        return Workspace(path.absolute(), owner, absent=True)
    try:
        real = path.resolve(strict=True)
        status = real.stat()
    except OSError as error:
        message = f"workspace {path} cannot be used: {error.strerror}; make the directory or name another --workspace"
        raise ConfigError(message) from error
    if not stat.S_ISDIR(status.st_mode):
        message = f"workspace {path} is not a directory; name one with --workspace"
        raise ConfigError(message)
    _refuse_too_much(real)
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
    return Workspace(real, user, *_guarded(real))


def ensure(workspace: Workspace) -> None:
    """Make the directory if it is absent.

    Raises:
        ConfigError: it cannot be made.
    """
    if not workspace.absent:
        return
    try:
        workspace.path.mkdir(parents=True, mode=0o755, exist_ok=True)
        if os.geteuid() == 0:
            os.chown(workspace.path, workspace.user.uid, workspace.user.gid)
    except OSError as error:
        message = f"workspace {workspace.path} cannot be made: {error.strerror}; name another with --workspace"
        raise ConfigError(message) from error


def refuse_store_inside(workspace: Path, store: Path) -> None:
    """Keep job records out of every Expert's reach.

    Raises:
        ConfigError: `store` is in `workspace`, or is it.
    """
    if store.resolve().is_relative_to(workspace.resolve()):
        message = f"the store {store} is inside the workspace {workspace}; name another with --storage or --workspace"
        raise ConfigError(message)


def _refuse_too_much(real: Path) -> None:
    if real == Path("/") or real == Path.home().resolve():
        message = f"workspace {real} is too much to hand to an Expert; name a directory of its own with --workspace"
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
    read_only = [Path(name) for name in _READ_ONLY if _is_regular(real / name)]
    hidden = [Path(entry.name) for entry in sorted(real.glob(".env*")) if _is_regular(entry)]
    return tuple(read_only), tuple(hidden)


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
        message = f"{path} is a symbolic link, which cannot be protected from Experts; replace it by the file"
        raise ConfigError(message)
    return stat.S_ISREG(mode)
