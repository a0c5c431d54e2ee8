"""Which changes of a workspace's copy reach the user's files, and where; pure.

Nothing of the user's is overwritten: where a file of theirs changed meanwhile, or another stands in the way, the copy's
is written next to it, as `NAME.from-sandbox`.
"""

import posixpath
from collections.abc import Iterator
from dataclasses import dataclass, field

from orchestrator.workspace.guarded_names import is_guarded, spelling_key
from orchestrator.workspace.manifest import Entry, Kind, Manifest, is_executable, parent_of, same

SUFFIX = ".from-sandbox"
"""What is added to the name of what could not have its place."""
_NAME_BYTES = 255
_MOST_NAMES = 1000
_LEFT_OUT = ("dev", "proc", "sys")
"""What Podman leaves out of an archive."""


@dataclass(frozen=True, slots=True)
class Write:
    """Write the file at `source` of the copy to `path`. `expected` is the user's file there, which it replaces."""

    path: str
    source: str
    entry: Entry
    expected: Entry | None = None

    @property
    def mode(self) -> int:
        """The mode of the new file: the user's, unless the copy made it executable or took that away."""
        if self.expected is None or is_executable(self.entry) != is_executable(self.expected):
            return self.entry.mode
        return self.expected.mode


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete `path`, if it is still `expected`; a directory only if it is empty."""

    path: str
    expected: Entry


@dataclass(frozen=True, slots=True)
class CopyPlan:
    """What to do with the user's files, in this order. `directories` are paths and modes, `links` paths and targets.

    `notes` are sentences about what was left out or got another name.
    """

    deletions: tuple[Delete, ...] = ()
    directories: tuple[tuple[str, int], ...] = ()
    writes: tuple[Write, ...] = ()
    links: tuple[tuple[str, Entry, Entry | None], ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def bytes(self) -> int:
        """How many bytes will be written."""
        return sum(write.entry.size for write in self.writes)


def without_unreadable(before: Manifest, inside: Manifest) -> tuple[Manifest, tuple[str, ...]]:
    """Return `before` without what an engine may have left out of its archive, and the names of that.

    Podman leaves out `dev`, `proc` and `sys` at the top (https://github.com/containers/podman, copyToArchive). Their
    absence does not show that the job deleted them.
    """
    missing = tuple(name for name in _LEFT_OUT if name in before and name not in inside)
    if not missing:
        return before, ()
    return {path: entry for path, entry in before.items() if path.partition("/")[0] not in missing}, missing


def changed_paths(before: Manifest, inside: Manifest) -> frozenset[str]:
    """Return the paths that the copy changed, added or deleted: `before` was copied in, `inside` is there now."""
    return frozenset(path for path in {*before, *inside} if not same(before.get(path), inside.get(path)))


def plan_copy_back(before: Manifest, inside: Manifest, host: Manifest, *, folds: bool) -> CopyPlan:
    """Plan how the changes from `before` to `inside` reach the user's files, which are now `host`.

    `host` has the digest of each file among `changed_paths`. With `folds` the host's file system takes different
    spellings for one name.
    """
    planner = _Planner(before, inside, dict(host), folds=folds)
    planner.plan()
    return CopyPlan(
        deletions=tuple(planner.deletions),
        directories=tuple(planner.directories.items()),
        writes=tuple(planner.writes),
        links=tuple(planner.links),
        notes=tuple(planner.notes),
    )


def spare_name(path: str, number: int) -> str:
    """Return a name for what cannot be written to `path`: `NAME.from-sandbox`, then with a number from 2 on.

    The name of a guarded file loses its dots at the front, so that no program takes it for an env file.
    """
    above, name = posixpath.split(path)
    suffix = SUFFIX if number == 1 else f"{SUFFIX}-{number}"
    if not above and is_guarded(name):
        name = name.lstrip(".").replace(":", "-") or "env"
    kept = name.encode("utf-8", "surrogateescape")[: _NAME_BYTES - len(suffix)].decode("utf-8", "ignore") + suffix
    return f"{above}/{kept}" if above else kept


def _refusal(path: str, entry: Entry) -> str | None:
    """Return why nothing of the kind may be made on the host, as a predicate; None if it may."""
    if entry.kind is Kind.OTHER:
        return "is a pipe, a socket or a device"
    if entry.kind is Kind.LINK and not is_safe_link(path, entry.target):
        return f"is a symbolic link out of the workspace, to {entry.target.decode('utf-8', 'backslashreplace')}"
    return None


def is_safe_link(path: str, target: bytes) -> bool:
    """Whether a symbolic link at `path` may be made on the host: it leads to a path within the workspace.

    `..` counts at the beginning only, since anywhere else it may follow another link.
    """
    parts = target.split(b"/")
    up = next((number for number, part in enumerate(parts) if part != b".."), len(parts))
    is_relative = target and not target.startswith(b"/") and b"\0" not in target
    return bool(is_relative) and b".." not in parts[up:] and up <= path.count("/")


@dataclass(slots=True)
class _Planner:
    before: Manifest
    inside: Manifest
    host: dict[str, Entry]
    folds: bool
    deletions: list[Delete] = field(default_factory=list)
    directories: dict[str, int] = field(default_factory=dict)
    writes: list[Write] = field(default_factory=list)
    links: list[tuple[str, Entry, Entry | None]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    _places: dict[str, str | None] = field(default_factory=lambda: {"": ""})
    """Where each path of the copy goes; None for nowhere."""
    _planned: set[str] = field(default_factory=set)
    """What the plan makes."""
    _spellings: dict[str, str] = field(default_factory=dict)

    def plan(self) -> None:
        for path in sorted(self.before, key=_parts, reverse=True):
            self._plan_deletion(path, self.before[path])
        self._spellings = {self._key(path): path for path in self.host}
        for path in sorted(self.inside, key=_parts):
            above = self._places.get(parent_of(path))
            self._places[path] = None if above is None else self._place(path, posixpath.join(above, _name(path)))

    def _plan_deletion(self, path: str, was: Entry) -> None:
        now, here = self.inside.get(path), self.host.get(path)
        if here is None or (now is not None and now.kind is was.kind):
            return
        if not same(here, was):
            if now is None:
                self.notes.append(f"{path} changed here while the job deleted it, so it was kept")
            return
        if here.kind is Kind.DIRECTORY and any(other.startswith(f"{path}/") for other in self.host):
            return
        self.deletions.append(Delete(path, here))
        del self.host[path]

    def _place(self, path: str, target: str) -> str | None:
        """Plan one path of the copy, which belongs at `target`; return where it goes."""
        entry, was = self.inside[path], self.before.get(path)
        if entry.kind is Kind.DIRECTORY:
            return self._place_directory(path, target, entry)
        if same(was, entry):
            return target
        if (reason := _refusal(target, entry)) is not None:
            self.notes.append(f"{path} {reason}, so it was not copied back")
            return None
        conflict = self._conflict(path, target, entry)
        if conflict is not None:
            return self._put_aside(path, target, entry, conflict)
        here = self.host.get(target)
        return target if same(here, entry) else self._put(path, target, entry, here)

    def _conflict(self, path: str, target: str, entry: Entry) -> str | None:
        """Return why a path of the copy cannot have its place, as a predicate; None if it can."""
        here, was = self.host.get(target), self.before.get(path)
        if "/" not in target and is_guarded(target):
            return "has a name that only you may write"
        if here is None:
            other = target if target in self._planned else self._other_spelling(target)
            return None if other is None else f"has the same name as {other} here"
        # A user's file may be replaced only if it is what was copied in.
        is_free = same(here, entry) or (target == path and here.kind is entry.kind and same(here, was))
        return None if is_free else "changed here while the job changed it"

    def _place_directory(self, path: str, target: str, entry: Entry) -> str:
        here, was = self.host.get(target), self.before.get(path)
        other = self._other_spelling(target) if here is None else target
        if target in self._planned and target not in self.directories:
            other = target
        if other is not None and (here is None or here.kind is not Kind.DIRECTORY):
            target, here = next(name for name in _spare_names(target) if self._is_free_for_directory(name)), None
            self.notes.append(f"{path} has the same name as {other} here: what the job changed in it is in {target}")
        if here is None and not same(was, entry):
            self._make(target, entry.mode)
        self._claim(target)
        return target

    def _put(self, path: str, target: str, entry: Entry, expected: Entry | None) -> str:
        above = parent_of(target)
        if above:
            self._make(above, 0o755)
        self._planned.add(target)
        if entry.kind is Kind.LINK:
            self.links.append((target, entry, expected))
        else:
            self.writes.append(Write(target, path, entry, expected))
        self._claim(target)
        return target

    def _put_aside(self, path: str, target: str, entry: Entry, why: str) -> str:
        for name in _spare_names(target):
            # It may be there from a copy back that was cut.
            if same(self.host.get(name), entry):
                break
            if not self._exists(name):
                self._put(path, name, entry, None)
                break
        self.notes.append(f"{path} {why}: the job's is {name}")
        return name

    def _make(self, path: str, mode: int) -> None:
        """Plan a directory, and those above it, unless they exist."""
        missing = []
        while path and path not in self.directories and path not in self.host:
            missing.append(path)
            path = parent_of(path)
        for each in reversed(missing):
            self.directories[each] = mode
            self._planned.add(each)
            self._claim(each)

    def _key(self, path: str) -> str:
        return spelling_key(path) if self.folds else path

    def _other_spelling(self, path: str) -> str | None:
        """Return another path that is the same to the host's file system."""
        other = self._spellings.get(self._key(path), path)
        return None if other == path else other

    def _is_free_for_directory(self, path: str) -> bool:
        # One that is there is from a copy back that was cut.
        here = self.host.get(path)
        return not self._exists(path) if here is None else here.kind is Kind.DIRECTORY

    def _exists(self, path: str) -> bool:
        return self._key(path) in self._spellings

    def _claim(self, path: str) -> None:
        self._spellings.setdefault(self._key(path), path)


def _spare_names(path: str) -> Iterator[str]:
    return (spare_name(path, number) for number in range(1, _MOST_NAMES))


def _name(path: str) -> str:
    return path.rpartition("/")[2]


def _parts(path: str) -> list[str]:
    return path.split("/")
