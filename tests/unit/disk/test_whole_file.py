"""A file has its old content or its new one, and no other file is left next to it."""

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from orchestrator.disk.whole_file import sync_file, write_atomically


@contextmanager
def umask(mask: int) -> Iterator[None]:
    """Set the umask of this process."""
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def content(directory: Path) -> dict[str, bytes]:
    """The content of each file in a directory."""
    return {path.name: path.read_bytes() for path in directory.iterdir()}


@pytest.mark.parametrize("synced", [False, True])
def test_the_old_content_is_replaced(tmp_path: Path, synced: bool) -> None:  # noqa: FBT001 - a parameter
    """A new file replaces it, even if the old one is not writable."""
    path = tmp_path / "file"
    path.write_bytes(b"old")
    path.chmod(0o400)
    old = path.stat().st_ino
    with path.open("rb") as reader:
        write_atomically(path, b"new", synced=synced)
        assert (reader.read(), path.stat().st_ino != old) == (b"old", True)
    sync_file(path)
    assert content(tmp_path) == {"file": b"new"}


@pytest.mark.parametrize(("mode", "expected"), [(0o600, 0o600), (0o444, 0o444), (None, 0o640)])
def test_the_mode_is_the_one_that_was_requested(tmp_path: Path, mode: int | None, expected: int) -> None:
    """It is exactly that, whatever the umask; without a mode, it is what the umask leaves."""
    with umask(0o027):
        write_atomically(tmp_path / "file", b"new", mode=mode)
    assert (tmp_path / "file").stat().st_mode & 0o777 == expected


def test_a_failure_leaves_the_old_content_and_no_other_file(tmp_path: Path) -> None:
    """The disk may be full in the middle, for example."""
    (tmp_path / "file").write_bytes(b"old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            write_atomically(tmp_path / "file", b"new")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert content(tmp_path) == {"file": b"old"}


def test_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    """The file that it leads to does not change."""
    (tmp_path / "target").write_bytes(b"old")
    (tmp_path / "link").symlink_to("target")
    write_atomically(tmp_path / "link", b"new")
    assert content(tmp_path) == {"target": b"old", "link": b"new"}


def test_a_relative_path_starts_at_a_descriptor(tmp_path: Path) -> None:
    """The path is found wherever the directory has been moved meanwhile."""
    (tmp_path / "before").mkdir()
    directory = os.open(tmp_path / "before", os.O_RDONLY)
    try:
        (tmp_path / "before").rename(tmp_path / "after")
        write_atomically(Path("file"), b"new", synced=True, dir_fd=directory)
    finally:
        os.close(directory)
    assert content(tmp_path / "after") == {"file": b"new"}
