"""Files that somebody else may have put there are read in no time, or refused with a reason."""

import os
from pathlib import Path

import pytest

from orchestrator.disk.plain_file import read_plain
from tests.support.odd_files import ODD

MOST = 1000


@pytest.mark.parametrize("kind", sorted(ODD.keys() - {"directory"}))
def test_what_is_no_file_is_refused(tmp_path: Path, kind: str) -> None:
    """With the reason; nothing is waited for and nothing without an end is read."""
    ODD[kind](tmp_path / "odd")
    why = "has more than 1000 bytes" if kind == "sparse" else "is not a regular file"
    with pytest.raises(ValueError, match=why):
        read_plain(tmp_path / "odd", MOST)


def test_a_directory_is_said_to_be_one(tmp_path: Path) -> None:
    """As Python says it."""
    with pytest.raises(IsADirectoryError, match="Is a directory"):
        read_plain(tmp_path, MOST)


def test_all_that_may_be_there_is_read(tmp_path: Path) -> None:
    """To the last byte, and not one more."""
    (tmp_path / "most").write_bytes(b"x" * MOST)
    (tmp_path / "more").write_bytes(b"x" * (MOST + 1))
    assert read_plain(tmp_path / "most", MOST) == b"x" * MOST
    with pytest.raises(ValueError, match="has more than 1000 bytes"):
        read_plain(tmp_path / "more", MOST)
    # The kernel says that these are empty.
    with pytest.raises(ValueError, match="has more than 10 bytes"):
        read_plain(Path("/proc/self/status"), 10)


def test_a_link_counts_only_where_it_may(tmp_path: Path) -> None:
    """A user's own file may be one; where an Expert may have put it, it may not."""
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
    """After it was looked at and before it is opened: a pipe is not waited for."""
    (tmp_path / "file").write_bytes(b"x")
    opens = os.open

    def late(path: Path, flags: int) -> int:
        path.unlink()
        os.mkfifo(path)
        return opens(path, flags)

    monkeypatch.setattr(os, "open", late)
    with pytest.raises(ValueError, match="is not a regular file"):
        read_plain(tmp_path / "file", MOST, follow=follow)
