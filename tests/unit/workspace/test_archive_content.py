"""An archive that no engine writes is refused as a whole."""

import io
import tarfile

import pytest

from orchestrator.backends.tar_reader import ArchiveError
from orchestrator.workspace import archive_content
from orchestrator.workspace.archive_content import ArchiveContent
from orchestrator.workspace.manifest import Entry, Kind

HELLO = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", mode: int = 0o644) -> tarfile.TarInfo:
    """A member; files have the content `hello`."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, link, mode
    info.size = 5 if kind == tarfile.REGTYPE else 0
    return info


def content_of(*members: tarfile.TarInfo, most: int = 1000) -> ArchiveContent:
    """Read an archive of these members."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for info in members:
            archive.addfile(info, io.BytesIO(b"hello"))
    content = ArchiveContent("workspace", most)
    list(content.feed(file.getvalue()))
    content.close()
    return content


TOP = member("workspace/", tarfile.DIRTYPE)


@pytest.mark.parametrize("root", ["workspace", ""], ids=["docker", "podman"])
def test_an_engines_archive_is_read(root: str) -> None:
    """Kinds, digests, hard links as files, and modes without the bits that are not copied."""
    content = content_of(
        member(f"{root}/", tarfile.DIRTYPE),
        member(f"{root}/d", tarfile.DIRTYPE, mode=0o777),
        member(f"{root}/d/f", mode=0o4777),
        member(f"{root}/h", tarfile.LNKTYPE, f"{root}/d/f"),
        member(f"{root}/s", tarfile.SYMTYPE, "/etc/passwd"),
        member(f"{root}/p", tarfile.FIFOTYPE),
    )
    file = Entry(kind=Kind.FILE, mode=0o755, size=5, digest=HELLO)
    assert content.entries == {
        "d": Entry(kind=Kind.DIRECTORY, mode=0o755),
        "d/f": file,
        "h": file,
        "s": Entry(kind=Kind.LINK, mode=0o644, target=b"/etc/passwd"),
        "p": Entry(kind=Kind.OTHER, mode=0o644),
    }
    assert content.links == {"h": "d/f"}


@pytest.mark.parametrize(
    "members",
    [
        (member("/etc/passwd"),),
        (member("workspace/../outside"),),
        (member("workspace/./x"),),
        (member("workspace//x"),),
        (member("other/x"),),
        (member("workspace"),),
        (member("workspace/x"), member("workspace/x")),
        (member("workspace/no-directory/x"),),
        (member("workspace/f"), member("workspace/f/x")),
        (member("workspace/s", tarfile.SYMTYPE, "/etc"), member("workspace/s/passwd")),
        (member("workspace/h", tarfile.LNKTYPE, "/etc/passwd"),),
        (member("workspace/h", tarfile.LNKTYPE, "workspace/later"), member("workspace/later")),
        (member("workspace/d", tarfile.DIRTYPE), member("workspace/h", tarfile.LNKTYPE, "workspace/d")),
        tuple(member("/".join(["workspace", *["d"] * depth]), tarfile.DIRTYPE) for depth in range(1, 300)),
    ],
)
def test_what_no_engine_writes_is_refused(members: tuple[tarfile.TarInfo, ...]) -> None:
    """Paths outside, twice, below what is no directory or too deep; hard links to what did not come before."""
    with pytest.raises(ArchiveError):
        content_of(TOP, *members)
    content_of(TOP, member("workspace/fine"))


def test_more_bytes_than_allowed_are_refused_by_their_header() -> None:
    """Before the content is read, which may be a terabyte of nothing."""
    info = member("workspace/x")
    info.size = 2**40
    content = ArchiveContent("workspace", 2**39)
    with pytest.raises(ArchiveError, match="more bytes"):
        list(content.feed(info.tobuf()))


def test_paths_may_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a million paths of 4 KiB each would be 2 GiB."""
    monkeypatch.setattr(archive_content, "_PATH_BYTES", 10_000)
    with pytest.raises(ArchiveError, match="paths of more than 10000 bytes"):
        content_of(TOP, *(member(f"workspace/{number:0200}") for number in range(100)))
