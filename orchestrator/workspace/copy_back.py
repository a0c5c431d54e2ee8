"""Applies a plan to the user's files: each file is written next to its place, and takes it whole.

Everything may be done again after it was cut: what is already in place is left alone by the next plan.
"""

import errno
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count

from orchestrator.backends.tar_reader import ArchiveError, TarReader
from orchestrator.sandbox.api import User
from orchestrator.workspace.archive_content import ArchiveContent, shown
from orchestrator.workspace.copy_plan import CopyPlan, Write, spare_name
from orchestrator.workspace.host_tree import HostTree, Signature, signature_of
from orchestrator.workspace.manifest import Entry, Kind, parent_of

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_UNFINISHED = ".unfinished"
_NOT_LINKED = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
"""How file systems without links refuse one."""


@dataclass(frozen=True, slots=True)
class Host:
    """The user's files as the plan found them. `owner` owns what is written; `token` marks unfinished files."""

    tree: HostTree
    signatures: dict[str, Signature]
    owner: User
    token: str


def prepare_places(host: Host, plan: CopyPlan) -> None:
    """Delete what the plan deletes and what a try that was cut left unfinished, and make the plan's directories.

    Raises:
        OSError: a directory cannot be made, or a file not be deleted.
    """
    for path in host.signatures:
        if _is_unfinished(host, path):
            with suppress(FileNotFoundError), _placed(host, path) as (above, name):
                os.unlink(name, dir_fd=above)
    for deletion in plan.deletions:
        with suppress(FileNotFoundError), _placed(host, deletion.path) as (above, name):
            if deletion.expected.kind is Kind.DIRECTORY:
                with suppress(OSError):
                    os.rmdir(name, dir_fd=above)  # the user may have put a file there
            elif _is_unchanged(host, deletion.path, name, above):
                os.unlink(name, dir_fd=above)
    for path, mode in plan.directories:
        with _placed(host, path) as (above, name), suppress(FileExistsError):
            os.mkdir(name, mode, dir_fd=above)
            _give(host, name, above)


def make_links(host: Host, plan: CopyPlan, note: Callable[[str], None]) -> None:
    """Make the plan's symbolic links.

    Raises:
        OSError: one cannot be made.
    """
    for path, entry, expected in plan.links:
        with _placed(host, path) as (above, _):
            unfinished = _unfinished(host, path)
            try:
                os.symlink(entry.target, os.fsencode(unfinished), dir_fd=above)
            except OSError as error:
                if error.errno not in _NOT_LINKED:
                    raise
                target = entry.target.decode("utf-8", "backslashreplace")
                note(f"{path} is a symbolic link to {target}, and the file system of the workspace has none")
                continue
            _give(host, unfinished, above)
            _take_place(host, path, unfinished, above, expected, note)


class CopyWriter:
    """Writes the plan's files as their content comes. `note` gets a sentence for each that got another name.

    `links` are the hard links of the archive that the plan was made for.
    """

    def __init__(self, host: Host, plan: CopyPlan, links: Mapping[str, str], note: Callable[[str], None]) -> None:
        self._host = host
        self._note = note
        self._waiting: dict[str, list[Write]] = {}
        for write in plan.writes:
            self._waiting.setdefault(links.get(write.source, write.source), []).append(write)
        self._open: list[_UnfinishedFile] = []

    @property
    def sources(self) -> tuple[str, ...]:
        """The files of the copy whose content has not come yet."""
        return tuple(self._waiting)

    def begin(self, path: str, modified: int) -> None:
        """Take the content of a path of the copy from now on, if the plan needs it.

        Raises:
            OSError: a file cannot be made.
        """
        for write in self._waiting.pop(path, ()):
            self._open.append(_UnfinishedFile(self._host, write, modified))

    def write(self, data: bytes) -> None:
        """Take the next piece of content.

        Raises:
            OSError: a file cannot be written.
        """
        for one in self._open:
            one.write(data)

    def finish(self) -> None:
        """Give the files their names whose content is complete.

        Raises:
            ArchiveError: the content is not the one that the plan was made for.
            OSError: a file cannot be written.
        """
        while self._open:
            self._open[-1].take_place(self._note)
            self._open.pop()

    def abandon(self) -> None:
        """Remove what is unfinished."""
        while self._open:
            self._open.pop().discard()


class WholeArchive:
    """The archive of the whole copy, for a writer that needs much of it."""

    def __init__(self, writer: CopyWriter, content: ArchiveContent) -> None:
        self._writer = writer
        self._content = content

    def feed(self, data: bytes) -> None:
        """Take the next bytes.

        Raises:
            ArchiveError: the archive is not the one that the plan was made for.
            OSError: a file cannot be written.
        """
        for part in self._content.feed(data):
            if isinstance(part, bytes):
                self._writer.write(part)
            else:
                self._writer.finish()
                self._writer.begin(part.path, part.modified)

    def close(self) -> None:
        """Finish the last file.

        Raises:
            ArchiveError: the archive is incomplete, or lacks a file of the plan.
            OSError: the file cannot be written.
        """
        self._content.close()
        self._writer.finish()
        if self._writer.sources:
            message = "no longer has all files that it had"
            raise ArchiveError(message)


class FileArchive:
    """The archive of one file of the copy, at `path`."""

    def __init__(self, writer: CopyWriter, path: str) -> None:
        self._writer = writer
        self._path = path
        self._reader = TarReader()
        self._has_begun = False

    def feed(self, data: bytes) -> None:
        """Take the next bytes.

        Raises:
            ArchiveError: the archive is damaged, or has more than one file.
            OSError: the file cannot be written.
        """
        for part in self._reader.feed(data):
            if isinstance(part, bytes):
                self._writer.write(part)
                continue
            if self._has_begun or part.type != b"0":
                message = f"no longer has a file at {shown(self._path)}"
                raise ArchiveError(message)
            self._has_begun = True
            self._writer.begin(self._path, part.modified)

    def close(self) -> None:
        """Finish the file.

        Raises:
            ArchiveError: the archive is incomplete, or has another file than the plan was made for.
            OSError: the file cannot be written.
        """
        self._reader.close()
        self._writer.finish()


class _UnfinishedFile:
    """A file that is being written next to its place."""

    def __init__(self, host: Host, write: Write, modified: int) -> None:
        self._host = host
        self._write = write
        self._modified = modified
        self._name = _unfinished(host, write.path)
        self._digest = hashlib.sha256()
        with _placed(host, write.path) as (above, _):
            self._file = os.open(self._name, _CREATE, 0o600, dir_fd=above)

    def write(self, data: bytes) -> None:
        self._digest.update(data)
        left = memoryview(data)
        while left:
            left = left[os.write(self._file, left) :]

    def take_place(self, note: Callable[[str], None]) -> None:
        write = self._write
        if self._digest.hexdigest() != write.entry.digest:
            message = "has changed while it was read"
            raise ArchiveError(message)
        # Some file systems have no owners or modes; that must not keep the content away.
        with suppress(OSError):
            if os.geteuid() == 0:
                os.fchown(self._file, self._host.owner.uid, self._host.owner.gid)
            os.fchmod(self._file, write.mode)
            os.utime(self._file, ns=(self._modified, self._modified))
        os.close(self._file)
        self._file = -1
        with _placed(self._host, write.path) as (above, _):
            _take_place(self._host, write.path, self._name, above, write.expected, note)

    def discard(self) -> None:
        if self._file >= 0:
            os.close(self._file)
        with suppress(OSError), _placed(self._host, self._write.path) as (above, _):
            os.unlink(self._name, dir_fd=above)


def _take_place(  # noqa: PLR0913, PLR0917 - one step with all that it needs
    host: Host, path: str, unfinished: str, above: int, expected: Entry | None, note: Callable[[str], None]
) -> None:
    """Give an unfinished file its name; if another is there that was not expected, one with a suffix."""
    name = path.rpartition("/")[2]
    if expected is not None and _is_unchanged(host, path, name, above):
        os.rename(unfinished, name, src_dir_fd=above, dst_dir_fd=above)
        return
    for number in count(0 if expected is None else 1):
        place = spare_name(path, number) if number else path
        if _named(unfinished, place.rpartition("/")[2], above):
            if number:
                note(f"{path} changed here while the job changed it: the job's is {place}")
            return


def _named(unfinished: str, name: str, above: int) -> bool:
    """Rename a file to a name that nothing has; return whether that was so."""
    try:
        os.link(unfinished, name, src_dir_fd=above, dst_dir_fd=above, follow_symlinks=False)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NOT_LINKED:
            raise
        # Without hard links there is a moment in which another process could make a file of this name.
        with suppress(FileNotFoundError):
            os.stat(name, dir_fd=above, follow_symlinks=False)
            return False
        os.rename(unfinished, name, src_dir_fd=above, dst_dir_fd=above)
        return True
    os.unlink(unfinished, dir_fd=above)
    return True


def _is_unchanged(host: Host, path: str, name: str, above: int) -> bool:
    with suppress(FileNotFoundError):
        return signature_of(os.stat(name, dir_fd=above, follow_symlinks=False)) == host.signatures.get(path)
    return False


def _give(host: Host, name: str, above: int) -> None:
    with suppress(OSError):  # as for files
        if os.geteuid() == 0:
            os.chown(name, host.owner.uid, host.owner.gid, dir_fd=above, follow_symlinks=False)


def _unfinished(host: Host, path: str) -> str:
    """Return the name of the unfinished file for a path, which shows the copy that it is from."""
    return f"{_mark(host.token)}{_digest(path)}{_UNFINISHED}"


def _is_unfinished(host: Host, path: str) -> bool:
    return path.rpartition("/")[2].startswith(_mark(host.token)) and path.endswith(_UNFINISHED)


def _mark(token: str) -> str:
    return f".{_digest(token)}-"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:24]


@contextmanager
def _placed(host: Host, path: str) -> Iterator[tuple[int, str]]:
    """Open the directory above a path for the block; give it with the name."""
    with host.tree.directory(parent_of(path)) as above:
        yield above, path.rpartition("/")[2]
