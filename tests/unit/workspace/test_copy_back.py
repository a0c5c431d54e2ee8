"""The user's files on a real disk, while a plan is carried out and others change them."""

import io
import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import pytest

from orchestrator.backends.tar_reader import ArchiveError
from orchestrator.sandbox.api import User
from orchestrator.workspace.archive_content import ArchiveContent
from orchestrator.workspace.copy_back import CopyWriter, FileArchive, Host, WholeArchive, make_links, prepare_places
from orchestrator.workspace.copy_plan import CopyPlan, changed_paths, plan_copy_back, without_unreadable
from orchestrator.workspace.host_tree import HostTree, host_tree, packed, scan
from orchestrator.workspace.manifest import Entry, Kind

OWNER = User(1000, 1000) if os.geteuid() == 0 else User(os.geteuid(), os.getegid())
MODIFIED = 1_700_000_000


@dataclass
class Copy:
    """A workspace that was copied in, and the way back."""

    root: Path
    tree: HostTree
    before: dict[str, Entry]
    notes: list[str] = field(default_factory=list)

    def planned(self, archive: bytes) -> tuple[Host, CopyPlan, ArchiveContent]:
        """Plan the way back of what an archive has."""
        content = ArchiveContent("workspace", 10**6)
        list(content.feed(archive))
        content.close()
        changed = changed_paths(self.before, content.entries)
        entries, signatures = scan(self.tree, changed.__contains__)
        plan = plan_copy_back(self.before, content.entries, entries, folds=False)
        return Host(self.tree, signatures, OWNER, "token"), plan, content

    def writer(self, host: Host, plan: CopyPlan, content: ArchiveContent) -> CopyWriter:
        """Make the places, and return the writer."""
        prepare_places(host, plan)
        return CopyWriter(host, plan, content.links, self.notes.append)

    def write(self, writer: CopyWriter, archive: bytes) -> None:
        """Write what a whole archive has."""
        whole = WholeArchive(writer, ArchiveContent("workspace", 10**6))
        try:
            whole.feed(archive)
            whole.close()
        finally:
            writer.abandon()

    def files(self) -> dict[str, str]:
        """All files, by path."""
        return {str(path.relative_to(self.root)): path.read_text() for path in self.root.rglob("*") if path.is_file()}


@pytest.fixture
def copied(tmp_path: Path) -> Iterator[Copy]:
    """A workspace with two files and a directory."""
    root = tmp_path / "workspace"
    (root / "d").mkdir(parents=True)
    for name in ("a", "d/b"):
        (root / name).write_text("before")
    with host_tree(root, None) as tree:
        before: dict[str, Entry] = {}
        list(packed(tree, OWNER, before))
        yield Copy(root, tree, before)


def archived(files: dict[str, str], links: dict[str, str] | None = None, root: str = "workspace/") -> bytes:
    """An archive as an engine sends it: files by path, and hard links."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
        above = {str(each) for path in files for each in PurePosixPath(path).parents if str(each) != "."}
        for path in sorted({"", *above}) if root else ():
            info = tarfile.TarInfo(f"{root}{path}".rstrip("/"))
            info.type, info.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(info)
        for path, content in files.items():
            info = tarfile.TarInfo(f"{root}{path}")
            info.size, info.mode, info.mtime = len(content), 0o4777, MODIFIED
            archive.addfile(info, io.BytesIO(content.encode()))
        for path, target in (links or {}).items():
            info = tarfile.TarInfo(f"{root}{path}")
            info.type, info.linkname = tarfile.LNKTYPE, f"{root}{target}"
            archive.addfile(info)
    return file.getvalue()


def test_what_an_engine_leaves_out_does_not_count_as_deleted() -> None:
    """Podman's archives have no `dev`, `proc` and `sys` at the top. Deeper ones count as all else does."""
    file, directory = Entry(kind=Kind.FILE), Entry(kind=Kind.DIRECTORY)
    before = {"dev": directory, "dev/x": file, "a": directory, "a/dev": file}
    assert without_unreadable(before, {"a": directory}) == ({"a": directory, "a/dev": file}, ("dev",))
    assert without_unreadable(before, before) == (before, ())


def test_hard_links_of_links_and_pipes_are_no_fault() -> None:
    """An engine writes each name of a file after its first as a hard link, whatever kind of file it is."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, kind, target in (
            ("workspace", tarfile.DIRTYPE, ""),
            ("workspace/l", tarfile.SYMTYPE, "a"),
            ("workspace/l2", tarfile.LNKTYPE, "workspace/l"),
            ("workspace/p", tarfile.FIFOTYPE, ""),
            ("workspace/p2", tarfile.LNKTYPE, "workspace/p"),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            archive.addfile(info)
    content = ArchiveContent("workspace", 10**6)
    assert [*content.feed(file.getvalue())] != []
    content.close()
    assert {path: entry.kind for path, entry in content.entries.items()} == {
        "l": Kind.LINK, "l2": Kind.LINK, "p": Kind.OTHER, "p2": Kind.OTHER,
    }  # fmt: skip
    assert (content.entries["l2"].target, content.links) == (b"a", {})


def test_links_that_lead_out_are_not_in_the_copy_and_stay_here(tmp_path: Path) -> None:
    """An engine refuses an archive with such a link. An absolute one, and one that stays inside, are copied."""
    root = tmp_path / "workspace"
    targets = {"out": "../x", "d/out": "../../x", "in": "d/../a", "d/up": "../a", "abs": "/etc"}
    (root / "d").mkdir(parents=True)
    for name, target in targets.items():
        (root / name).symlink_to(target)
    manifest: dict[str, Entry] = {}
    with host_tree(root, None) as tree:
        list(packed(tree, OWNER, manifest))
        entries, _ = scan(tree, lambda _: True)
        plan = plan_copy_back(manifest, manifest, entries, folds=False)
    assert sorted(manifest) == ["abs", "d", "d/up", "in"]
    assert plan == CopyPlan()


def test_changes_are_written_with_owner_mode_and_time(copied: Copy) -> None:
    """A new file has the copy's, without special bits and writing by others; a hard link becomes a separate file."""
    archive = archived({"a": "job", "d/b": "before", "new": "x"}, {"linked": "d/b"})
    host, plan, content = copied.planned(archive)
    copied.write(copied.writer(host, plan, content), archive)
    assert copied.files() == {"a": "job", "d/b": "before", "new": "x", "linked": "before"}
    status = (copied.root / "new").stat()
    assert (status.st_uid, status.st_mode & 0o7777, int(status.st_mtime)) == (OWNER.uid, 0o755, MODIFIED)
    assert (copied.root / "linked").stat().st_nlink == 1
    assert copied.notes == []


def test_files_may_come_one_by_one(copied: Copy) -> None:
    """The archive of a single file has its own name alone."""
    host, plan, content = copied.planned(archived({"a": "job", "d/b": "more", "e/f/g": "deep"}))
    writer = copied.writer(host, plan, content)
    for path, text in (("a", "job"), ("d/b", "more"), ("e/f/g", "deep")):
        one = FileArchive(writer, path)
        one.feed(archived({path.rpartition("/")[2]: text}, root=""))
        one.close()
    assert copied.files() == {"a": "job", "d/b": "more", "e/f/g": "deep"}
    assert writer.sources == ()


def test_a_change_after_the_look_is_kept(copied: Copy) -> None:
    """The user saves a file, and makes another, between the plan and the writing: the job's get other names."""
    archive = archived({"a": "job", "d/b": "before", "new": "job"})
    host, plan, content = copied.planned(archive)
    writer = copied.writer(host, plan, content)
    (copied.root / "a").write_text("saved meanwhile")
    (copied.root / "new").write_text("mine")
    copied.write(writer, archive)
    assert copied.files() == {
        "a": "saved meanwhile",
        "a.from-sandbox": "job",
        "d/b": "before",
        "new": "mine",
        "new.from-sandbox": "job",
    }
    assert len(copied.notes) == 2


def test_a_file_that_changed_after_the_look_is_not_deleted(copied: Copy) -> None:
    """The job deleted it, and the user saves it just before."""
    host, plan, _ = copied.planned(archived({"d/b": "before"}))
    (copied.root / "a").write_text("saved meanwhile")
    prepare_places(host, plan)
    assert copied.files() == {"a": "saved meanwhile", "d/b": "before"}


def test_a_link_in_place_of_a_directory_is_not_followed(copied: Copy, tmp_path: Path) -> None:
    """Another process puts it there between the plan and the writing: an error, and nothing outside."""
    archive = archived({"a": "before", "d/b": "job", "d/c": "job"})
    host, plan, content = copied.planned(archive)
    writer = copied.writer(host, plan, content)
    outside = tmp_path / "outside"
    outside.mkdir()
    (copied.root / "d").rename(tmp_path / "aside")
    (copied.root / "d").symlink_to(outside)
    with pytest.raises(OSError, match="d"):
        copied.write(writer, archive)
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize(
    "archive",
    [
        archived({"a": "else", "d/b": "before"}),
        archived({"d/b": "before"}),
        archived({"a": "job", "d/b": "before"})[:1600],
    ],
)
def test_another_archive_than_planned_leaves_the_files_as_they_are(copied: Copy, archive: bytes) -> None:
    """Its content differs, a file is missing, or it ends early: an error, and no unfinished file."""
    host, plan, content = copied.planned(archived({"a": "job", "d/b": "before"}))
    with pytest.raises(ArchiveError):
        copied.write(copied.writer(host, plan, content), archive)
    assert copied.files() == {"a": "before", "d/b": "before"}


def test_what_a_try_left_unfinished_is_removed(copied: Copy) -> None:
    """By the next try of the same copy; a file of the same kind of name that is another's stays."""
    archive = archived({"a": "job", "d/b": "before"})
    host, plan, content = copied.planned(archive)
    writer = copied.writer(host, plan, content)
    writer.begin("a", 0)
    writer.write(b"jo")
    (copied.root / ".x-y.unfinished").write_text("mine")
    assert len(copied.files()) == 4
    copied.write(copied.writer(*copied.planned(archive)), archive)
    assert copied.files() == {"a": "job", "d/b": "before", ".x-y.unfinished": "mine"}


def test_links_replace_only_what_was_expected(copied: Copy) -> None:
    """A link takes its place, or another name if a file is there; it is a link, and not what it leads to."""
    host, _, _ = copied.planned(archived({"a": "before", "d/b": "before"}))
    link = Entry(kind=Kind.LINK, target=b"../a")
    make_links(host, CopyPlan(links=(("d/l", link, None), ("d/b", link, None))), copied.notes.append)
    assert [(copied.root / name).readlink() for name in ("d/l", "d/b.from-sandbox")] == [Path("../a")] * 2
    assert (copied.root / "d/b").read_text() == "before"
    assert len(copied.notes) == 1
