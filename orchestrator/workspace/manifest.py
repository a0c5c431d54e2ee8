"""What a tree of files contains: each path with its kind, its mode and a digest of its content; pure.

A path is relative to the tree, with `/` between its parts; bytes that are no UTF-8 are surrogates, as in `os.fsdecode`.
"""

import os
from collections.abc import Mapping
from enum import StrEnum

from orchestrator.wire.frozen import Frozen

MOST_ENTRIES = 500_000
"""Files and directories of a workspace that is copied: their manifest is held in memory, about 500 bytes each."""
MOST_LEVELS = 256
"""How deep its directories may be nested."""

_EXECUTABLE = 0o100


class Kind(StrEnum):
    """What a path names. `other` is a pipe, a socket or a device."""

    FILE = "file"
    DIRECTORY = "directory"
    LINK = "link"
    OTHER = "other"


class Entry(Frozen):
    """One path of a tree. `digest` is the SHA-256 of a file's content in hex, `target` where a symbolic link leads.

    `digest` is empty where the content was not read.
    """

    kind: Kind
    mode: int = 0
    size: int = 0
    digest: str = ""
    target: bytes = b""


Manifest = Mapping[str, Entry]
"""The entries of a tree by path, without the tree's own directory."""


class WorkspaceCopy(Frozen):
    """The record of a workspace that is in an engine's volume until its changes are copied back.

    It exists from the moment the volume is filled until the volume is removed. `engine` is the engine's id, `image` the
    image of the container by which the volume is read. `directory` is the workspace's path on this machine, `inode` its
    device and inode number. `uid` and `gid` own what is copied back. `paths` and `entries` are the manifest of what was
    copied in.
    """

    volume: str
    engine: str
    image: str
    directory: bytes
    inode: tuple[int, int]
    uid: int
    gid: int
    paths: tuple[bytes, ...]
    entries: tuple[Entry, ...]

    @property
    def manifest(self) -> dict[str, Entry]:
        """What was copied in."""
        return dict(zip(map(os.fsdecode, self.paths), self.entries, strict=True))


def same(one: Entry | None, other: Entry | None) -> bool:
    """Whether two entries have the same kind and content; of a file's mode only the executable bit counts."""
    if one is None or other is None or one.kind is not other.kind:
        return one is other
    match one.kind:
        case Kind.FILE:
            return one.digest == other.digest and is_executable(one) == is_executable(other)
        case Kind.LINK:
            return one.target == other.target
    return True


def is_executable(entry: Entry) -> bool:
    """Whether a file's owner may run it."""
    return entry.mode & _EXECUTABLE != 0


def kept_mode(mode: int, kind: Kind) -> int:
    """Return the mode that an entry keeps on the way: no special bits, no writing by others, all for its owner."""
    return mode & 0o755 | (0o700 if kind is Kind.DIRECTORY else 0o600)


def parent_of(path: str) -> str:
    """Return the directory that contains a path; empty for the tree's own."""
    return path.rpartition("/")[0]
