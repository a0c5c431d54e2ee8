"""The registry of directories that were mounted as a workspace: whatever lies there, an Expert may have written.

It is kept for each user, outside of all workspaces, and holds empty files whose names are all there is to know:

    perstack-orch/mounted/p<digest>               a directory was mounted at the real path with this digest
    perstack-orch/mounted/i<inode>-<generation>   one with this inode number and generation, on whatever device
    perstack-orch/mounted/i<inode>-d<dev>-<file system>-<boot>
                                                  one with this inode number on this device, until the next restart

The inode tells a directory that was moved. Its number is used again once the directory is removed, and then has another
generation; where that is not known, the device tells, until devices may get other numbers, and then the path alone.
Names are only ever added, so any number of processes may do so at once.
"""

import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from orchestrator.caller import OURS, known_state_homes, state_home
from orchestrator.errors import ConfigError
from orchestrator.trail import Directory, Trail, follow, origins

_NAME = "mounted"
_DIGEST = 32


def record(directory: Path) -> None:
    """Record that `directory` is about to be mounted as a workspace; do nothing if the caller has no home.

    Raises:
        ConfigError: it cannot be recorded, or the record would be where the Expert could change it.
    """
    above = state_home()
    if above is None:
        return
    place = above / OURS / _NAME
    try:
        with _made(above) as registry:
            trail = follow(directory)
            if trail.status is None or not stat.S_ISDIR(trail.status.st_mode):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(directory))
            _keep_apart(trail.above, follow(place).above)
            mounted = trail.above[-1]
            for name in {_by_path(mounted), _by_device(mounted), _by_inode(mounted)}:
                with suppress(FileExistsError):
                    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
                    os.close(os.open(name, flags, 0o644, dir_fd=registry))
    except OSError as error:
        message = (
            f"workspace {directory} is not mounted, since that cannot be recorded in {place} ({error.strerror}), and"
            " what Experts leave in it could later count as your configuration; make that directory yours and writable,"
            " or name another place with XDG_STATE_HOME"
        )
        raise ConfigError(message) from error


def mounted_on(trail: Trail) -> str | None:
    """Say by which workspace something may be an Expert's, as the rest of a sentence about it; None if by none.

    Raises:
        ConfigError: the caller's own registry cannot be read.
    """
    if (workspace := mounted_above(trail.above)) is not None:
        return f"is in {workspace}, which was mounted as a workspace, so an Expert may have written it"
    for link in trail.links:
        if (workspace := mounted_above(link.above)) is not None:
            return (
                f"is reached through the link {link.path} in {workspace}, which was mounted as a workspace, so an"
                " Expert may have made it"
            )
    return None


def mounted_above(directories: tuple[Directory, ...]) -> Path | None:
    """Give the outermost of `directories` that was mounted as a workspace, each of which is in the one before it.

    Where a bind mount shows the last of them, what it lies in elsewhere counts too.

    Raises:
        ConfigError: the caller's own registry cannot be read.
    """
    if (workspace := _first_mounted(directories)) is not None:
        return workspace
    with suppress(OSError):
        for origin in origins(directories[-1].path):
            elsewhere = follow(origin).above
            if os.path.samestat(elsewhere[-1].status, directories[-1].status):
                workspace = workspace or _first_mounted(elsewhere)
    return workspace


def _first_mounted(directories: tuple[Directory, ...]) -> Path | None:
    own = state_home()
    for above in known_state_homes():
        place = above / OURS / _NAME
        try:
            with _opened(place) as registry:
                for directory in directories:
                    if any(_is_there(name, registry) for name in (_by_path(directory), _by_inode(directory))):
                        return directory.path
        except FileNotFoundError:
            continue
        except OSError as error:
            if above != own:
                continue
            message = (
                f"the registry of mounted workspaces {place} cannot be read ({error.strerror}), so configuration counts"
                " only if it is named; make it a directory of yours, or remove it"
            )
            raise ConfigError(message) from error
    return None


@contextmanager
def _opened(place: Path) -> Iterator[int]:
    descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _by_path(directory: Directory) -> str:
    return f"p{hashlib.sha256(os.fsencode(directory.path)).hexdigest()[:_DIGEST]}"


def _by_device(directory: Directory) -> str:
    # The root of each tmpfs has inode 1, and the number of a device is used again once its file system is unmounted.
    status = directory.status
    return f"i{status.st_ino}-d{status.st_dev}-{directory.file_system:x}-{_boot()}"


def _by_inode(directory: Directory) -> str:
    if directory.generation is None:
        return _by_device(directory)
    return f"i{directory.status.st_ino}-{directory.generation}"


@cache
def _boot() -> str:
    """Name this run of the machine: after it, numbers of devices may be those of others."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return "unknown"


def _is_there(name: str, registry: int) -> bool:
    try:
        os.stat(name, dir_fd=registry, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _keep_apart(workspace: tuple[Directory, ...], registry: tuple[Directory, ...]) -> None:
    """See that neither is in the other, by whatever names, a bind mount's too."""
    if _is_among(workspace[-1], registry) or _is_among(registry[-1], workspace):
        message = (
            f"workspace {workspace[-1].path} holds the registry of mounted workspaces {registry[-1].path}, or lies in"
            " it; name another with --workspace, or another place for the registry with XDG_STATE_HOME"
        )
        raise ConfigError(message)
    if (other := mounted_above(registry)) is not None:
        message = (
            f"the registry of mounted workspaces {registry[-1].path} is in {other}, which was mounted as one itself;"
            " or name another place with XDG_STATE_HOME"
        )
        raise ConfigError(message)


def _is_among(directory: Directory, others: tuple[Directory, ...]) -> bool:
    return any(os.path.samestat(directory.status, other.status) for other in others)


@contextmanager
def _made(above: Path) -> Iterator[int]:
    """Open the registry below the directory `above`; what is missing is made."""
    above.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(above, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in (OURS, _NAME):
            is_new = _make(name, descriptor)
            inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = inner
            _check_ours(os.fstat(descriptor))
            if is_new or name == OURS:
                # Whatever the umask: other users are to find what root has mounted. The first may be there for locks.
                os.fchmod(descriptor, 0o755)
        yield descriptor
    finally:
        os.close(descriptor)


def _make(name: str, above: int) -> bool:
    try:
        os.mkdir(name, 0o755, dir_fd=above)
    except FileExistsError:
        return False
    return True


def _check_ours(status: os.stat_result) -> None:
    if status.st_uid != os.geteuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PermissionError(errno.EPERM, "it belongs to another user, or others may write to it")
