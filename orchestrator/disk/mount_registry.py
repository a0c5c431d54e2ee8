"""The registry of directories that were mounted as a workspace: an Expert may have written any file there.

Each user has one, outside of all workspaces; it contains empty files whose names hold all information:

    perstack-orch/mounted/p<digest>               a directory was mounted at the real path with this digest
    perstack-orch/mounted/i<inode>-<generation>   one with this inode number and generation, on any device
    perstack-orch/mounted/i<inode>-d<dev>-<file system>-<boot>
                                                  one with this inode number on this device, until the next restart

The inode identifies a directory that was moved. Its number is reused once the directory is removed, but then with
another generation; if the generation is unknown, the device identifies it until devices may be renumbered, and then
only the path does. macOS gives neither: there an entry of the last kind stays valid. Names are only ever added, so many
processes may do so at once.
"""

import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from orchestrator.disk.caller import PROJECT_DIRECTORY, known_state_homes, state_home
from orchestrator.disk.path_trail import Directory, Trail, follow, origins
from orchestrator.disk.system import boot_id
from orchestrator.errors import ConfigError

_NAME = "mounted"
_DIGEST = 32


def record_mount(directory: Path) -> None:
    """Record that `directory` will be mounted as a workspace; do nothing if the caller has no home.

    Raises:
        ConfigError: it cannot be recorded, or the record would be where the Expert could change it.
    """
    above = state_home()
    if above is None:
        return
    path = above / PROJECT_DIRECTORY / _NAME
    try:
        with _make_registry(above) as registry:
            trail = follow(directory)
            if trail.status is None or not stat.S_ISDIR(trail.status.st_mode):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(directory))
            _check_separate(trail.above, follow(path).above)
            mounted = trail.above[-1]
            for name in {_by_path(mounted), _by_device(mounted), _by_inode(mounted)}:
                with suppress(FileExistsError):
                    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
                    os.close(os.open(name, flags, 0o644, dir_fd=registry))
    except OSError as error:
        message = (
            f"workspace {directory} is not mounted, because this cannot be recorded in {path} ({error.strerror}), and"
            " files that Experts leave in it could later count as your configuration; make that directory yours and"
            " writable, or choose another with XDG_STATE_HOME"
        )
        raise ConfigError(message) from error


def mounted_on(trail: Trail) -> str | None:
    """Return the workspace by which a file may be an Expert's, as the end of a sentence about it; None if none.

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
    """Return the outermost of `directories` that was mounted as a workspace; each contains the next one.

    If a bind mount shows the last of them, its other location counts too.

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
        path = above / PROJECT_DIRECTORY / _NAME
        try:
            with _open_directory(path) as registry:
                for directory in directories:
                    if any(_exists(name, registry) for name in (_by_path(directory), _by_inode(directory))):
                        return directory.path
        except FileNotFoundError:
            continue
        except OSError as error:
            if above != own:
                continue
            message = (
                f"the registry of mounted workspaces {path} cannot be read ({error.strerror}), so configuration counts"
                " only if it is named; make it a directory of yours, or remove it"
            )
            raise ConfigError(message) from error
    return None


@contextmanager
def _open_directory(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _by_path(directory: Directory) -> str:
    return f"p{hashlib.sha256(os.fsencode(directory.path)).hexdigest()[:_DIGEST]}"


def _by_device(directory: Directory) -> str:
    # The root of each tmpfs has inode 1, and a device number is reused once its file system is unmounted.
    status = directory.status
    return f"i{status.st_ino}-d{status.st_dev}-{directory.file_system:x}-{boot_id()}"


def _by_inode(directory: Directory) -> str:
    if directory.generation is None:
        return _by_device(directory)
    return f"i{directory.status.st_ino}-{directory.generation}"


def _exists(name: str, registry: int) -> bool:
    try:
        os.stat(name, dir_fd=registry, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _check_separate(workspace: tuple[Directory, ...], registry: tuple[Directory, ...]) -> None:
    """Check that neither contains the other, under any name or bind mount."""
    if _is_among(workspace[-1], registry) or _is_among(registry[-1], workspace):
        message = (
            f"workspace {workspace[-1].path} contains the registry of mounted workspaces {registry[-1].path}, or is in"
            " it; name another with --workspace, or choose another place for the registry with XDG_STATE_HOME"
        )
        raise ConfigError(message)
    if (other := mounted_above(registry)) is not None:
        message = (
            f"the registry of mounted workspaces {registry[-1].path} is in {other}, which was mounted as one itself;"
            " choose another place with XDG_STATE_HOME"
        )
        raise ConfigError(message)


def _is_among(directory: Directory, others: tuple[Directory, ...]) -> bool:
    return any(os.path.samestat(directory.status, other.status) for other in others)


@contextmanager
def _make_registry(above: Path) -> Iterator[int]:
    """Open the registry below the directory `above`; create what is missing."""
    above.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(above, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in (PROJECT_DIRECTORY, _NAME):
            is_new = _make(name, descriptor)
            inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = inner
            _check_owner(os.fstat(descriptor))
            if is_new or name == PROJECT_DIRECTORY:
                # Whatever the umask: other users must see what root has mounted. The first may exist for the locks.
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


def _check_owner(status: os.stat_result) -> None:
    if status.st_uid != os.geteuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PermissionError(errno.EPERM, "it belongs to another user, or others may write to it")
