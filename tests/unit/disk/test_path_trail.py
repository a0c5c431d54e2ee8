"""Where a path leads, and what is passed on the way."""

import fcntl
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.disk.path_trail import follow, origins

ROOT = os.geteuid() == 0


def passed(path: Path) -> tuple[Path, list[Path], list[Path]]:
    """Return where a path leads, through which links, and the directories that contain that."""
    trail = follow(path)
    return trail.path, [link.path for link in trail.links], [each.path for each in trail.above]


def above(path: Path) -> list[Path]:
    """Return all directories down to one."""
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


@pytest.fixture(params=["linux", "darwin"])
def system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Walk as on Linux, and as on macOS, which opens directories only."""
    monkeypatch.setattr(fcntl, "F_GETPATH", 50, raising=False)  # Linux refuses this command
    monkeypatch.setattr(sys, "platform", request.param)


@pytest.mark.usefixtures("system")
def test_the_way_is_that_of_the_kernel(tree: Path) -> None:
    """Links, `..` after a link, files and directories are followed like the kernel does."""
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


@pytest.mark.usefixtures("system")
def test_a_link_is_listed_with_its_directory(tree: Path) -> None:
    """The owner of a link's directory made it, not the owner of its target."""
    [link] = follow(tree / "to-b" / ".." / "file").links
    assert [each.path for each in link.above] == above(tree)
    assert os.path.samestat(link.status, (tree / "to-b").lstat())


@pytest.mark.parametrize("changes", [1, 1000])
def test_a_link_that_is_replaced_is_read_again(
    tree: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, changes: int
) -> None:
    """On macOS a link is read by its name; its owner and its target still belong together, or it is an error."""
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(fcntl, "F_GETPATH", 50, raising=False)
    left, read, clock = changes, os.readlink, tmp_path_factory.mktemp("clock") / "now"

    def later(name: str, *, dir_fd: int) -> str:
        nonlocal left
        if left:
            left -= 1
            before = tree.stat().st_ctime_ns
            while before == _now(clock):  # the time stamps of Linux have steps of some milliseconds
                pass
            (tree / "new").symlink_to(f"a/{left}")
            (tree / "new").rename(tree / "to-b")
        return read(name, dir_fd=dir_fd)

    monkeypatch.setattr(os, "readlink", later)
    if changes > 1:
        with pytest.raises(OSError, match="keeps changing"):
            follow(tree / "to-b")
        return
    trail = follow(tree / "to-b")
    assert trail.path == tree / "a" / "0"
    assert os.path.samestat(trail.links[0].status, (tree / "to-b").lstat())


def _now(clock: Path) -> int:
    clock.touch()
    return clock.stat().st_ctime_ns


@pytest.mark.usefixtures("system")
def test_a_missing_file_is_listed_by_its_place(tree: Path) -> None:
    """An absent target is returned as a path, also behind a dangling link and some levels deeper."""
    assert follow(tree / "nowhere" / "x").status is None
    assert passed(tree / "nowhere" / "x" / "y") == (
        tree / "a" / "absent" / "x" / "y",
        [tree / "nowhere"],
        above(tree / "a"),
    )


@pytest.mark.usefixtures("system")
@pytest.mark.parametrize("path", ["round", "a/file/x", "a/file/..", "absent/../a", "nowhere/.."])
def test_a_way_that_there_is_not(tree: Path, path: str) -> None:
    """Such a path fails as opening it would."""
    with pytest.raises(OSError) as raised:  # noqa: PT011 - which one is compared
        follow(tree / path)
    with pytest.raises(type(raised.value)):
        (tree / path).stat()


def test_a_generation_separates_a_directory_from_an_earlier_one(tmp_path: Path) -> None:
    """File systems with generations reuse inode numbers, but with another generation."""
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
    """Call `then` while a bind mount shows a directory elsewhere too."""
    at.mkdir()
    if not ROOT or subprocess.run(["mount", "--bind", shown, at], check=False, capture_output=True).returncode:  # noqa: S607
        pytest.skip("nothing can be mounted here")
    try:
        then()
    finally:
        subprocess.run(["umount", at], check=True)  # noqa: S607


def test_a_bind_mount_is_listed_by_its_source(tmp_path: Path) -> None:
    """The parents of the mounted part are found, although no path through the mount contains them."""
    inner, at = tmp_path / "out er" / "inner", tmp_path / "mou nt"
    (inner / "deep").mkdir(parents=True)

    def look() -> None:
        assert inner / "deep" in origins(at / "deep")
        assert inner in origins(at)
        assert at not in origins(inner)

    in_bind_mount(inner, at, look)
    assert origins(inner) == origins(tmp_path)[:0]
