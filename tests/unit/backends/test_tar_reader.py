"""The reader of archives agrees with the standard library, whatever the pieces, and never fails in another way."""

import io
import tarfile
from collections.abc import Sequence
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.backends.tar_reader import ArchiveError, Member, TarReader

NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=300)
TYPES = {tarfile.REGTYPE: 0, tarfile.DIRTYPE: 1, tarfile.SYMTYPE: 2, tarfile.LNKTYPE: 3, tarfile.FIFOTYPE: 4}


def read(pieces: Sequence[bytes]) -> list[tuple[Member, bytes]]:
    """Read a whole archive."""
    reader, found = TarReader(), list[tuple[Member, bytes]]()
    for piece in pieces:
        for part in reader.feed(piece):
            if isinstance(part, Member):
                found.append((part, b""))
            else:
                member, content = found[-1]
                found[-1] = member, content + part
    reader.close()
    return found


def written(members: Sequence[tuple[tarfile.TarInfo, bytes]], form: int) -> bytes:
    """Return an archive as the standard library writes it."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form) as archive:
        for info, content in members:
            archive.addfile(info, io.BytesIO(content))
    return file.getvalue()


@st.composite
def archives(draw: st.DrawFn) -> tuple[list[tuple[tarfile.TarInfo, bytes]], int]:
    """Members with names, links and contents of any kind, in a format with long names."""
    members = []
    for name in draw(st.lists(NAMES, max_size=6)):
        info = tarfile.TarInfo(name)
        info.type = draw(st.sampled_from(list(TYPES)))
        info.linkname = draw(NAMES) if info.type in {tarfile.SYMTYPE, tarfile.LNKTYPE} else ""
        content = draw(st.binary(max_size=1500)) if info.type == tarfile.REGTYPE else b""
        info.size, info.mode, info.mtime = len(content), draw(st.integers(0, 0o7777)), draw(st.integers(0, 2**34))
        members.append((info, content))
    return members, draw(st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]))


@given(archives(), st.integers(1, 2000))
def test_it_reads_what_the_standard_library_writes(
    archive: tuple[list[tuple[tarfile.TarInfo, bytes]], int], size: int
) -> None:
    """Names, kinds, modes, links, times and contents, in pieces of any size."""
    members, form = archive
    data = written(members, form)
    found = read([data[start : start + size] for start in range(0, len(data), size)])
    assert [
        (each.name.rstrip(b"/"), each.type, each.mode, each.link, each.modified, content) for each, content in found
    ] == [
        (
            info.name.encode().rstrip(b"/"),
            info.type,
            info.mode,
            info.linkname.encode(),
            int(info.mtime) * 10**9,
            content,
        )
        for info, content in members
    ]


@given(st.binary(max_size=3000))
def test_any_bytes_are_an_archive_or_a_clear_error(data: bytes) -> None:
    """Nothing but ArchiveError is raised."""
    reader = TarReader()
    try:
        list(reader.feed(data))
        reader.close()
    except ArchiveError:
        pass


@given(archives(), st.data())
def test_a_changed_byte_is_an_archive_or_a_clear_error(
    archive: tuple[list[tuple[tarfile.TarInfo, bytes]], int], data: st.DataObject
) -> None:
    """A header that was changed is found by its checksum, or is another header; the checksum is made right here."""
    content = bytearray(written(*archive))
    at = data.draw(st.integers(0, 511))
    content[at] = data.draw(st.integers(0, 255))
    content[148:156] = b" " * 8
    content[148:156] = b"%06o\0 " % sum(content[:512])
    with suppress(ArchiveError):
        read([bytes(content)])


@pytest.mark.parametrize("cut", [1, 511, 512, 700, 1024, 1400])
def test_an_archive_that_ends_early_is_an_error(cut: int) -> None:
    """Wherever the connection broke."""
    info = tarfile.TarInfo("name")
    info.size = 600
    data = written([(info, bytes(600))], tarfile.PAX_FORMAT)
    with pytest.raises(ArchiveError, match="ends in the middle"):
        read([data[:cut]])


def test_a_link_has_no_content() -> None:
    """Whatever size its header has; the next member follows at once."""
    info = tarfile.TarInfo("link")
    info.type, info.linkname, info.size = tarfile.SYMTYPE, "target", 700
    found = read([info.tobuf() + tarfile.TarInfo("next").tobuf() + bytes(1024)])
    assert [(member.name, member.size) for member, _ in found] == [(b"link", 0), (b"next", 0)]


def test_a_long_extended_header_is_not_held_in_memory() -> None:
    """Its size is refused before its content comes."""
    info = tarfile.TarInfo("name")
    info.type, info.size = tarfile.XHDTYPE, 2**30
    with pytest.raises(ArchiveError, match="too long"):
        list(TarReader().feed(info.tobuf(tarfile.USTAR_FORMAT)))


def test_a_large_number_is_read() -> None:
    """A file of 9 GiB has a size that octal digits cannot hold."""
    info = tarfile.TarInfo("large")
    info.size = 9 * 2**30
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        (member,) = TarReader().feed(info.tobuf(form))
        assert isinstance(member, Member)
        assert member.size == info.size
