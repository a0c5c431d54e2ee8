"""Where a path leads: every directory and symbolic link on it, each inspected as it was passed.

The path is walked by descriptors, so no name is looked up twice, and no process can replace a file after its
inspection.
"""

import errno
import fcntl
import os
import re
import stat
import sys
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from orchestrator.disk.system import PASS, spelled

_MAX_LINKS = 40
"""The kernel's limit."""

_READS = 10
"""How often a link is read again whose directory changes meanwhile."""

_GET_GENERATION, _GENERATION_BYTES = 0x80087601, 8
"""FS_IOC_GETVERSION of linux/fs.h where a long has 64 bits."""
_ESCAPED = re.compile(rb"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class Directory:
    """One directory by its real path.

    `generation` distinguishes it from an earlier one with the same inode; None if the file system does not report it,
    or the caller may not read it. `file_system` is the id of the file system: one that is mounted later under the same
    device number has another; 0 if it has none. `is_read_only` is true if it is mounted read-only.
    """

    path: Path
    status: os.stat_result
    generation: int | None
    file_system: int
    is_read_only: bool


@dataclass(frozen=True, slots=True)
class TrailLink:
    """A symbolic link, and the directories that contain it, from the root down."""

    path: Path
    status: os.stat_result
    above: tuple[Directory, ...]


@dataclass(frozen=True, slots=True)
class Trail:
    """Where a path leads: to the real path `path`, through `links` in order.

    `status` is that of the file there; None if none exists. `above` are the directories that contain it, from the root
    down; if it is a directory itself, it is the last of them.
    """

    path: Path
    status: os.stat_result | None
    above: tuple[Directory, ...]
    links: tuple[TrailLink, ...]


def follow(path: Path) -> Trail:
    """Walk to where `path` leads from the current directory; no file needs to be there.

    Raises:
        OSError: a directory on the way may not be passed or is not one, or the links form a loop.
    """
    with ExitStack() as opened:
        return _walk(list(reversed(path.absolute().parts[1:])), opened)


def origins(directory: Path) -> tuple[Path, ...]:
    """Return other paths of a directory by its real path, if a bind mount shows it without its parents.

    macOS has no bind mounts.

    Raises:
        OSError: the kernel does not list the mounts.
    """
    if sys.platform == "darwin":
        return ()
    end, mounts = os.fsencode(directory), _mounts()
    # Of several at one mount point, the last hides the others.
    device, shown, point = max((each for each in mounts if _is_below(end, each[2])), key=lambda each: len(each[2]))
    if shown == b"/":
        return ()
    inner = end[len(point.rstrip(b"/")) :]
    return tuple(
        Path(os.fsdecode(mount_point.rstrip(b"/") + shown[len(root.rstrip(b"/")) :] + inner))
        for other, root, mount_point in mounts
        if other == device and root != shown and _is_below(shown, root)
    )


def _mounts() -> list[tuple[bytes, bytes, bytes]]:
    """List the mounts, the last first: its device, the directory on it, and the mount point, as in proc(5)."""
    lines = Path("/proc/self/mountinfo").read_bytes().splitlines()
    fields = (line.split(b" ", 5) for line in reversed(lines))
    return [(device, _plain(root), _plain(point)) for _, _, device, root, point, *_ in fields]


def _plain(field: bytes) -> bytes:
    # Blanks and similar characters are written as octal numbers.
    return _ESCAPED.sub(lambda octal: bytes((int(octal[1], 8),)), field) if b"\\" in field else field


def _is_below(path: bytes, above: bytes) -> bool:
    return path == above or path.startswith(above.rstrip(b"/") + b"/")


def _walk(remaining: list[str], opened: ExitStack) -> Trail:
    root = os.open("/", PASS | os.O_DIRECTORY | os.O_CLOEXEC)
    opened.callback(os.close, root)
    walked = [_directory(Path("/"), root)]
    links: list[TrailLink] = []
    while remaining:
        name, (current, descriptor) = remaining.pop(), walked[-1]
        if name == "..":
            del walked[max(1, len(walked) - 1) :]
            continue
        path, above = current.path / name, tuple(each for each, _ in walked)
        try:
            entry = _entry(name, descriptor)
        except FileNotFoundError:
            if ".." in remaining:
                raise
            return Trail(path.joinpath(*reversed(remaining)), None, above, tuple(links))
        if entry.directory is not None:
            opened.callback(os.close, entry.directory)
            walked.append(_directory(path, entry.directory))
        elif entry.target is not None:
            links.append(TrailLink(path, entry.status, above))
            if len(links) > _MAX_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
            target = PurePosixPath(entry.target)
            if target.is_absolute():
                del walked[1:]
            remaining.extend(reversed(target.parts[1:] if target.is_absolute() else target.parts))
        elif remaining:
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
        else:
            return Trail(path, entry.status, above, tuple(links))
    end = walked[-1][0]
    return Trail(end.path, end.status, tuple(each for each, _ in walked), tuple(links))


@dataclass(frozen=True, slots=True)
class _Entry:
    """A name in a directory: a descriptor if it is a directory, the target if it is a link, and its status."""

    status: os.stat_result
    directory: int | None = None
    target: str | None = None


def _entry(name: str, above: int) -> _Entry:
    """Inspect a name in an open directory; the caller closes `directory`.

    Raises:
        OSError: it does not exist, cannot be inspected, or its directory does not stop changing.
    """
    if sys.platform != "linux":
        return _entry_by_name(name, above)
    found = os.open(name, PASS | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=above)
    with ExitStack() as unless_directory:
        unless_directory.callback(os.close, found)
        status = os.fstat(found)
        if stat.S_ISLNK(status.st_mode):
            return _Entry(status, target=os.readlink("", dir_fd=found))
        if not stat.S_ISDIR(status.st_mode):
            return _Entry(status)
        unless_directory.pop_all()
    return _Entry(status, directory=found)


def _entry_by_name(name: str, above: int) -> _Entry:
    """Do the same on a system where only directories can be opened without side effects.

    A process that replaces a link changes the time stamps of its directory, so status and target belong together if
    these are the same before and after.
    """
    for _ in range(_READS):
        before, status = os.fstat(above).st_ctime_ns, os.stat(name, dir_fd=above, follow_symlinks=False)
        if stat.S_ISDIR(status.st_mode):
            directory = os.open(name, PASS | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=above)
            return _Entry(os.fstat(directory), directory=directory)
        if not stat.S_ISLNK(status.st_mode):
            return _Entry(status)
        target = os.readlink(name, dir_fd=above)
        if os.fstat(above).st_ctime_ns == before:
            return _Entry(status, target=target)
    raise OSError(errno.EBUSY, "another process keeps changing its directory", name)


def _directory(path: Path, descriptor: int) -> tuple[Directory, int]:
    path = spelled(descriptor, path)
    about = os.fstatvfs(descriptor)
    is_read_only = bool(about.f_flag & os.ST_RDONLY)
    return Directory(path, os.fstat(descriptor), _generation(descriptor), about.f_fsid, is_read_only), descriptor


def _generation(directory: int) -> int | None:
    if sys.platform != "linux":
        return None
    with suppress(OSError):
        readable = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory)
        try:
            answer = fcntl.ioctl(readable, _GET_GENERATION, bytes(_GENERATION_BYTES))
        finally:
            os.close(readable)
        # The kernel writes an int, despite the request's name. 0 is what mkfs gives: no generation at all.
        return int.from_bytes(answer[:4], "little") or None
    return None
