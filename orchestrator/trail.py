"""The way that a path leads: every directory and every symbolic link on it, each looked at as it was passed.

The way is walked by descriptors, so no name is looked up twice, and nobody can put another file in the place of one
that was looked at.
"""

import errno
import fcntl
import os
import re
import stat
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

_MOST_LINKS = 40
"""As many as the kernel follows."""

_GET_GENERATION, _GENERATION_BYTES = 0x80087601, 8
"""FS_IOC_GETVERSION of linux/fs.h where a long has 64 bits."""
_ESCAPED = re.compile(rb"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class Directory:
    """One directory by its real path.

    `generation` tells it apart from an earlier one that had the same inode; None where the file system does not say,
    or the caller may not read it. `file_system` is the id of the file system: one that is mounted later under the same
    device number has another; 0 where there is none. `is_read_only` says that what it is mounted from cannot be written
    to there.
    """

    path: Path
    status: os.stat_result
    generation: int | None
    file_system: int
    is_read_only: bool


@dataclass(frozen=True, slots=True)
class Link:
    """A symbolic link, and the directories it lies in, from the root down."""

    path: Path
    status: os.stat_result
    above: tuple[Directory, ...]


@dataclass(frozen=True, slots=True)
class Trail:
    """Where a path leads: to the real path `path`, through `links` in order.

    `status` is that of what is there; None if nothing is. `above` are the directories it lies in, from the root down;
    where it is a directory itself, that is the last of them.
    """

    path: Path
    status: os.stat_result | None
    above: tuple[Directory, ...]
    links: tuple[Link, ...]


def follow(path: Path) -> Trail:
    """Walk to where `path` leads from the current directory; it may lead to nothing.

    Raises:
        OSError: a directory on the way may not be passed or is none, or the links go round in a circle.
    """
    with ExitStack() as opened:
        return _walk(list(reversed(path.absolute().parts[1:])), opened)


def origins(directory: Path) -> tuple[Path, ...]:
    """Give other paths of a directory by its real path, where a bind mount shows it without what it lies in.

    Raises:
        OSError: the kernel does not say what is mounted.
    """
    end, mounts = os.fsencode(directory), _mounts()
    # Of several at one place, the last hides the others.
    device, shown, point = max((each for each in mounts if _is_below(end, each[2])), key=lambda each: len(each[2]))
    if shown == b"/":
        return ()
    inner = end[len(point.rstrip(b"/")) :]
    return tuple(
        Path(os.fsdecode(there.rstrip(b"/") + shown[len(root.rstrip(b"/")) :] + inner))
        for other, root, there in mounts
        if other == device and root != shown and _is_below(shown, root)
    )


def _mounts() -> list[tuple[bytes, bytes, bytes]]:
    """List what is mounted, the last first: its device, which directory of that, and where, as proc(5) says."""
    lines = Path("/proc/self/mountinfo").read_bytes().splitlines()
    fields = (line.split(b" ", 5) for line in reversed(lines))
    return [(device, _plain(root), _plain(point)) for _, _, device, root, point, *_ in fields]


def _plain(field: bytes) -> bytes:
    # Blanks and the like are written as octal numbers.
    return _ESCAPED.sub(lambda octal: bytes((int(octal[1], 8),)), field) if b"\\" in field else field


def _is_below(path: bytes, above: bytes) -> bool:
    return path == above or path.startswith(above.rstrip(b"/") + b"/")


def _walk(ahead: list[str], opened: ExitStack) -> Trail:
    way = [_directory(Path("/"), _opened("/", None, opened))]
    links: list[Link] = []
    while ahead:
        name, (here, descriptor) = ahead.pop(), way[-1]
        if name == "..":
            del way[max(1, len(way) - 1) :]
            continue
        path, above = here.path / name, tuple(each for each, _ in way)
        try:
            found = _opened(name, descriptor, opened)
        except FileNotFoundError:
            if ".." in ahead:
                raise
            return Trail(path.joinpath(*reversed(ahead)), None, above, tuple(links))
        status = os.fstat(found)
        if stat.S_ISDIR(status.st_mode):
            way.append(_directory(path, found))
        elif stat.S_ISLNK(status.st_mode):
            links.append(Link(path, status, above))
            if len(links) > _MOST_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
            target = PurePosixPath(os.readlink("", dir_fd=found))
            if target.is_absolute():
                del way[1:]
            ahead.extend(reversed(target.parts[1:] if target.is_absolute() else target.parts))
        elif ahead:
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
        else:
            return Trail(path, status, above, tuple(links))
    end = way[-1][0]
    return Trail(end.path, end.status, tuple(each for each, _ in way), tuple(links))


def _opened(name: str, above: int | None, opened: ExitStack) -> int:
    descriptor = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=above)
    opened.callback(os.close, descriptor)
    return descriptor


def _directory(path: Path, descriptor: int) -> tuple[Directory, int]:
    about = os.fstatvfs(descriptor)
    is_read_only = bool(about.f_flag & os.ST_RDONLY)
    return Directory(path, os.fstat(descriptor), _generation(descriptor), about.f_fsid, is_read_only), descriptor


def _generation(directory: int) -> int | None:
    with suppress(OSError):
        readable = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory)
        try:
            answer = fcntl.ioctl(readable, _GET_GENERATION, bytes(_GENERATION_BYTES))
        finally:
            os.close(readable)
        # The kernel writes an int, whatever the request is named for. 0 is what mkfs gives: no number at all.
        return int.from_bytes(answer[:4], "little") or None
    return None
