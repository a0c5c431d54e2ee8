"""Files that others may have put in place are read at once, or refused with a reason."""

import os
from pathlib import Path

import pytest

from orchestrator.disk.plain_file import read_plain
from tests.support.odd_files import ODD

MOST = 1000


@pytest.mark.parametrize("kind", sorted(ODD.keys() - {"directory"}))
def test_what_is_no_file_is_refused(tmp_path: Path, kind: str) -> None:
    """Other kinds of files are refused with the reason, without waiting and without endless reads."""
    ODD[kind](tmp_path / "odd")
    why = "has more than 1000 bytes" if kind == "sparse" else "is not a regular file"
    with pytest.raises(ValueError, match=why):
        read_plain(tmp_path / "odd", MOST)


def test_a_directory_is_reported_as_one(tmp_path: Path) -> None:
    """A directory is reported with Python's own error."""
    with pytest.raises(IsADirectoryError, match="Is a directory"):
        read_plain(tmp_path, MOST)


def test_all_that_may_be_there_is_read(tmp_path: Path) -> None:
    """A file of exactly the limit is read completely; one byte more is refused."""
    (tmp_path / "most").write_bytes(b"x" * MOST)
    (tmp_path / "more").write_bytes(b"x" * (MOST + 1))
    assert read_plain(tmp_path / "most", MOST) == b"x" * MOST
    with pytest.raises(ValueError, match="has more than 1000 bytes"):
        read_plain(tmp_path / "more", MOST)
    # The kernel reports size 0 for these.
    with pytest.raises(ValueError, match="has more than 10 bytes"):
        read_plain(Path("/proc/self/status"), 10)


def test_a_link_counts_only_where_it_may(tmp_path: Path) -> None:
    """A link is followed for a user's own file, and refused where an Expert may have put it."""
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "loop").symlink_to("loop")
    assert read_plain(tmp_path / "link", MOST) == b"x"
    for name in ("link", "loop"):
        with pytest.raises(ValueError, match="is a symbolic link"):
            read_plain(tmp_path / name, MOST, follow=False)
    with pytest.raises(OSError, match="symbolic links"):
        read_plain(tmp_path / "loop", MOST)
    with pytest.raises(FileNotFoundError):
        read_plain(tmp_path / "absent", MOST, follow=False)


@pytest.mark.parametrize("follow", [False, True])
def test_what_is_put_there_meanwhile_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, follow: bool
) -> None:
    """A pipe put in place between check and open is refused without waiting."""
    (tmp_path / "file").write_bytes(b"x")
    opens = os.open

    def late(path: Path, flags: int, *, dir_fd: int | None) -> int:
        path.unlink()
        os.mkfifo(path)
        return opens(path, flags, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", late)
    with pytest.raises(ValueError, match="is not a regular file"):
        read_plain(tmp_path / "file", MOST, follow=follow)


def test_a_relative_path_is_below_the_given_directory(tmp_path: Path) -> None:
    """Also after the directory was moved: the descriptor leads to it."""
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "file").write_bytes(b"x")
    directory = os.open(tmp_path / "old", os.O_RDONLY | os.O_DIRECTORY)
    try:
        (tmp_path / "old").rename(tmp_path / "new")
        assert read_plain(Path("file"), MOST, dir_fd=directory) == b"x"
    finally:
        os.close(directory)
