"""Where a path leads, and what is passed on the way."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.trail import follow, origins

ROOT = os.geteuid() == 0


def passed(path: Path) -> tuple[Path, list[Path], list[Path]]:
    """Where it leads, through which links, and which directories that is in."""
    trail = follow(path)
    return trail.path, [link.path for link in trail.links], [each.path for each in trail.above]


def above(path: Path) -> list[Path]:
    """All directories down to one."""
    return [*reversed(path.parents), path]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A few directories, a file and links of every kind."""
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "file").touch()
    (tmp_path / "to-b").symlink_to("a/b")
    (tmp_path / "a" / "b" / "up").symlink_to("../file")
    (tmp_path / "absolute").symlink_to(tmp_path / "to-b")
    (tmp_path / "nowhere").symlink_to("a/absent")
    (tmp_path / "round").symlink_to("round")
    return tmp_path


def test_the_way_is_that_of_the_kernel(tree: Path) -> None:
    """Relative and absolute links, `..` behind a link, files and directories."""
    b = tree / "a" / "b"
    assert passed(b) == (b, [], above(b))
    assert passed(tree / "a" / "file") == (tree / "a" / "file", [], above(tree / "a"))
    assert passed(tree / "to-b") == (b, [tree / "to-b"], above(b))
    assert passed(tree / "absolute") == (b, [tree / "absolute", tree / "to-b"], above(b))
    assert passed(tree / "to-b" / ".." / "file") == (tree / "a" / "file", [tree / "to-b"], above(tree / "a"))
    through = (tree / "a" / "file", [tree / "absolute", tree / "to-b", b / "up"], above(tree / "a"))
    assert passed(tree / "absolute" / "up") == through
    assert passed(Path("/", *[".."] * 3)) == (Path("/"), [], [Path("/")])
    for path in (tree / "absolute" / "up", tree / "to-b" / "..", b, Path("/proc/self")):
        assert follow(path).path == path.resolve()


def test_a_link_is_told_with_what_it_lies_in(tree: Path) -> None:
    """There, and not where it leads to, is who made it."""
    [link] = follow(tree / "to-b" / ".." / "file").links
    assert [each.path for each in link.above] == above(tree)
    assert os.path.samestat(link.status, (tree / "to-b").lstat())


def test_what_is_absent_is_told_by_where_it_would_be(tree: Path) -> None:
    """Also behind a link to nothing, and some directories further."""
    assert follow(tree / "nowhere" / "x").status is None
    assert passed(tree / "nowhere" / "x" / "y") == (
        tree / "a" / "absent" / "x" / "y",
        [tree / "nowhere"],
        above(tree / "a"),
    )


@pytest.mark.parametrize("path", ["round", "a/file/x", "a/file/..", "absent/../a", "nowhere/.."])
def test_a_way_that_there_is_not(tree: Path, path: str) -> None:
    """It fails as opening it would."""
    with pytest.raises(OSError) as raised:  # noqa: PT011 - which one is compared
        follow(tree / path)
    with pytest.raises(type(raised.value)):
        (tree / path).stat()


def test_a_generation_tells_a_directory_from_an_earlier_one(tmp_path: Path) -> None:
    """File systems that have such numbers use those of inodes again, and then give another generation."""
    seen = set()
    for _ in range(8):
        (tmp_path / "x").mkdir()
        made = follow(tmp_path / "x").above[-1]
        assert made == follow(tmp_path / "x").above[-1]
        if made.generation is None:
            pytest.skip("this file system has no generations")
        seen.add((made.status.st_ino, made.generation))
        (tmp_path / "x").rmdir()
    assert len(seen) == 8


def in_bind_mount(shown: Path, at: Path, then: Callable[[], None]) -> None:
    """Do something while a bind mount shows a directory elsewhere too."""
    at.mkdir()
    if not ROOT or subprocess.run(["mount", "--bind", shown, at], check=False, capture_output=True).returncode:  # noqa: S607
        pytest.skip("nothing can be mounted here")
    try:
        then()
    finally:
        subprocess.run(["umount", at], check=True)  # noqa: S607


def test_a_bind_mount_is_told_by_where_it_comes_from(tmp_path: Path) -> None:
    """The part of the file system that it shows lies in directories that no name of the mount tells."""
    inner, at = tmp_path / "out er" / "inner", tmp_path / "mou nt"
    (inner / "deep").mkdir(parents=True)

    def look() -> None:
        assert inner / "deep" in origins(at / "deep")
        assert inner in origins(at)
        assert at not in origins(inner)

    in_bind_mount(inner, at, look)
    assert origins(inner) == origins(tmp_path)[:0]
