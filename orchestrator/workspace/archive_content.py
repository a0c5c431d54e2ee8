"""What the archive of a workspace's copy contains; its names and sizes are checked as hostile input.

An engine writes one entry for each path, directories before what is in them. Anything else is refused as a whole,
because its content would be ambiguous.
"""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass

from orchestrator.backends.tar_reader import ArchiveError, Member, TarReader
from orchestrator.workspace.manifest import MOST_ENTRIES, MOST_LEVELS, Entry, Kind, kept_mode, parent_of

_PATH_BYTES = 256 * 1024 * 1024
"""How many bytes all paths and links may have together: they are held in memory."""

_KINDS = {b"0": Kind.FILE, b"1": Kind.FILE, b"2": Kind.LINK, b"5": Kind.DIRECTORY}


@dataclass(frozen=True, slots=True)
class Found:
    """A member of the archive by its path; `modified` is Unix time in nanoseconds."""

    path: str
    modified: int


class ArchiveContent:
    """Reads an archive as it arrives; in the end `entries` has all that it contains.

    `links` are the paths that are hard links, each with the earlier path that has its content. `root` is the name of
    the directory that was archived, and `most_bytes` how much its files may have together: a sparse file can have any
    size.
    """

    def __init__(self, root: str, most_bytes: int) -> None:
        self.entries: dict[str, Entry] = {}
        self.links: dict[str, str] = {}
        self._root = root
        self._left = most_bytes
        self._left_for_paths = _PATH_BYTES
        self._reader = TarReader()
        self._current: Found | None = None
        self._digest = hashlib.sha256()

    def feed(self, data: bytes) -> Iterator[Found | bytes]:
        """Take the next bytes of the archive; yield its members, each followed by the pieces of its content.

        Raises:
            ArchiveError: the archive is damaged, too large, or has a path that no engine writes.
        """
        for part in self._reader.feed(data):
            if isinstance(part, bytes):
                self._digest.update(part)
                yield part
                continue
            self._finish()
            found = self._found(part)
            if found is not None:
                self._current = found
                yield found

    def close(self) -> None:
        """Check that the archive was complete.

        Raises:
            ArchiveError: it was not.
        """
        self._finish()
        self._reader.close()

    def _found(self, member: Member) -> Found | None:
        self._left -= member.size
        if self._left < 0:
            message = "has more bytes than fit on the disk of the workspace"
            raise ArchiveError(message)
        kind = _KINDS.get(member.type, Kind.OTHER)
        path = self._path(member.name)
        if not path:
            if kind is not Kind.DIRECTORY:
                message = "is not that of a directory"
                raise ArchiveError(message)
            return None
        if len(self.entries) >= MOST_ENTRIES:
            message = f"has more than {MOST_ENTRIES} files and directories"
            raise ArchiveError(message)
        self._left_for_paths -= len(member.name) + len(member.link)
        if self._left_for_paths < 0:
            message = f"has paths of more than {_PATH_BYTES} bytes"
            raise ArchiveError(message)
        above = parent_of(path)
        if path in self.entries or (above and self._kind(above) is not Kind.DIRECTORY):
            message = f"has a path twice, or one that is not in a directory: {shown(path)}"
            raise ArchiveError(message)
        link_to = self._path(member.link) if member.type == b"1" else None
        if link_to is not None and (link_to in self.links or self._kind(link_to) in {None, Kind.DIRECTORY}):
            message = f"has a hard link to what is not in it: {shown(path)}"
            raise ArchiveError(message)
        if link_to is None:
            target = member.link if kind is Kind.LINK else b""
            self.entries[path] = Entry(kind=kind, mode=kept_mode(member.mode, kind), size=member.size, target=target)
        else:
            # Engines also write those of symbolic links and pipes, which have no content.
            if self._kind(link_to) is Kind.FILE:
                self.links[path] = link_to
            self.entries[path] = self.entries[link_to]
        return Found(path, member.modified)

    def _finish(self) -> None:
        """Add the digest of a file that is complete."""
        found, self._current = self._current, None
        entry = None if found is None or found.path in self.links else self.entries[found.path]
        if found is not None and entry is not None and entry.kind is Kind.FILE:
            self.entries[found.path] = entry.with_(digest=self._digest.hexdigest())
        self._digest = hashlib.sha256()

    def _kind(self, path: str) -> Kind | None:
        entry = self.entries.get(path)
        return None if entry is None else entry.kind

    def _path(self, name: bytes) -> str:
        """Return the path of a name below the root; empty for the root.

        Raises:
            ArchiveError: it is outside, or has parts that no engine writes.
        """
        text = os.fsdecode(name).rstrip("/")
        root, _, path = text.partition("/")
        parts = path.split("/") if path else []
        # Podman leaves the name of the root out.
        is_below = root in {"", self._root} and {"", ".", ".."}.isdisjoint(parts)
        if not is_below or "\0" in text or len(parts) > MOST_LEVELS:
            message = f"has a path outside of its directory, or one that is too deep: {shown(text)}"
            raise ArchiveError(message)
        return path


def shown(path: str) -> str:
    """Return a path as text that can be printed."""
    return repr(path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")[-200:])
