"""No path leads out of the workspace, whatever else changes in it at the same time."""

import errno
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.runtime.tools import ToolError, paths, read_text_file, write_text_file
from orchestrator.runtime.tools.paths import open_beneath, resolve, walk

Open = Callable[[int, PurePosixPath, int], int]
SECRET = "outside"
RACE_SECONDS = 0.7


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A workspace with a file outside it that must never be read."""
    directory = tmp_path / "workspace"
    directory.mkdir()
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text(SECRET)
    return directory


@pytest.mark.behaviour("F1")
@pytest.mark.parametrize(
    ("path", "relative"),
    [
        ("a/b", "a/b"),
        ("./a//b/", "a/b"),
        ("a/../b", "b"),
        ("", "."),
        (".", "."),
        ("~", "."),
        ("~/a", "a"),
        ("/workspace", "."),
        ("/workspace/a", "a"),
        ("perstack.toml", "perstack.toml"),
        ("a/perstack", "a/perstack"),
    ],
)
def test_paths_inside_are_resolved(path: str, relative: str, workspace: Path) -> None:
    """Paths inside are resolved relative to the workspace."""
    assert resolve(workspace, path) == PurePosixPath(relative)


NAMES = st.one_of(
    st.sampled_from(
        ["", ".", "..", "~", "a", "perstack", "PerStack", "workspace", "etc", "outside", "file", "-x", " "]
    ),
    st.text(max_size=8),
)
PATHS = st.tuples(st.sampled_from(["", "/", "//", "~/", "./", "/workspace/"]), st.lists(NAMES, max_size=8)).map(
    lambda made: made[0] + "/".join(made[1])
)


@pytest.mark.behaviour("F2")
@given(path=st.one_of(PATHS, st.text(max_size=40)))
def test_every_text_is_a_path_inside_or_refused(path: str) -> None:
    """A path has no way up, is not absolute, and is not the reserved directory; else it is a ToolError."""
    try:
        found = resolve(Path("/somewhere/workspace"), path)
    except ToolError:
        return
    assert not found.is_absolute()
    assert ".." not in found.parts
    assert not found.parts or found.parts[0].casefold() != "perstack"
    assert "\0" not in str(found)


@pytest.mark.behaviour("F1")
def test_the_real_path_of_the_workspace_is_inside(workspace: Path) -> None:
    """If the workspace is not mounted at /workspace, its own path is accepted too."""
    assert resolve(workspace, f"{workspace}/a") == PurePosixPath("a")


@pytest.mark.behaviour("F2")
@pytest.mark.parametrize(
    "path", ["/etc/passwd", "../..", "..", "a/../../b", "/workspace-other/x", "/workspace/..", "a\0"]
)
def test_paths_outside_are_refused(path: str, workspace: Path) -> None:
    """Absolute paths, `..`, and siblings with the same prefix are refused."""
    with pytest.raises(ToolError):
        resolve(workspace, path)


@pytest.mark.behaviour("F3")
@pytest.mark.parametrize(
    "path", ["perstack", "PERSTACK/jobs", "./perstack", "a/../Perstack/x", "/workspace/perstack", "~/perstack"]
)
def test_the_reserved_directory_is_refused(path: str, workspace: Path) -> None:
    """The reserved directory is refused in any case and spelling."""
    with pytest.raises(ToolError, match="reserved"):
        resolve(workspace, path)


@pytest.mark.behaviour("F1")
def test_a_missing_parent_is_an_error(workspace: Path) -> None:
    """A new file needs an existing directory."""
    with pytest.raises(ToolError, match="does not exist"):
        write_text_file.execute({"path": "no/x", "text": ""}, workspace)


@pytest.mark.behaviour("F4")
@pytest.mark.parametrize("open_file", [open_beneath, walk])
@pytest.mark.parametrize("path", ["link", "dir/file"])
def test_links_are_refused(open_file: Open, path: str, workspace: Path) -> None:
    """A link as the target or in the path is refused, with openat2 and without."""
    (workspace / "link").symlink_to(workspace.parent / "outside" / "file")
    (workspace / "dir").symlink_to(workspace.parent / "outside")
    with _directory(workspace) as root, pytest.raises(OSError) as raised:  # noqa: PT011 - its number is compared
        open_file(root, PurePosixPath(path), os.O_RDONLY)
    assert raised.value.errno in (errno.ELOOP, errno.ENOTDIR)


@pytest.mark.parametrize("flags", [os.O_PATH, os.O_RDONLY, os.O_RDONLY | os.O_DIRECTORY])
def test_openat2_and_its_stand_in_agree(flags: int, workspace: Path) -> None:
    """Both open the same directories, and refuse a link with all kinds of flags."""
    (workspace / "a" / "b").mkdir(parents=True)
    (workspace / "a" / "link").symlink_to("b")
    with _directory(workspace) as root:
        for path in (PurePosixPath("a/b"), PurePosixPath()):
            inodes = set()
            for open_file in (open_beneath, walk):
                fd = open_file(root, path, flags)
                inodes.add(os.fstat(fd).st_ino)
                os.close(fd)
            assert len(inodes) == 1
        for open_file in (open_beneath, walk):
            with pytest.raises(OSError):  # noqa: PT011 - ELOOP or ENOTDIR, by flags
                open_file(root, PurePosixPath("a/link"), flags)


def test_a_kernel_without_openat2(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the call is missing or forbidden, files can still be opened."""

    def missing(*_args: object) -> int:
        raise OSError(errno.ENOSYS, "missing")

    monkeypatch.setattr(paths, "_openat2", missing)
    write_text_file.execute({"path": "x", "text": "y"}, workspace)
    assert read_text_file.execute({"path": "x"}, workspace)["content"] == "y"


def test_special_files_are_refused(workspace: Path) -> None:
    """A FIFO is refused without blocking; a directory is not a file."""
    os.mkfifo(workspace / "fifo")
    (workspace / "dir").mkdir()
    for path in ("fifo", "dir", "."):
        with pytest.raises(ToolError):
            read_text_file.execute({"path": path}, workspace)
        with pytest.raises(ToolError):
            write_text_file.execute({"path": path, "text": ""}, workspace)


def _naive(root: int, path: PurePosixPath, flags: int) -> int:
    # Equivalent to realpath with O_NOFOLLOW: the last name is checked, the directories before it are not.
    name = str(path)
    if os.path.islink(f"/proc/self/fd/{root}/{path.parent}"):  # noqa: PTH114 - as the careless would
        raise OSError(errno.ELOOP, "link")
    return os.open(name, flags | os.O_NOFOLLOW, dir_fd=root)


@pytest.mark.behaviour("F5")
@pytest.mark.parametrize(("open_file", "escapes"), [(open_beneath, False), (walk, False), (_naive, True)])
def test_no_race_escapes(open_file: Open, escapes: bool, workspace: Path) -> None:  # noqa: FBT001 - a parameter
    """While a directory and a link change places, nothing outside is ever read; a naive check is fooled."""
    (workspace / "real").mkdir()
    (workspace / "real" / "file").write_text("inside")
    (workspace / "link").symlink_to(workspace.parent / "outside")
    stop = threading.Event()
    swapper = threading.Thread(target=_swap, args=(workspace, stop))
    read: dict[str, int] = {}
    swapper.start()
    try:
        until = time.monotonic() + RACE_SECONDS
        with _directory(workspace) as root:
            while time.monotonic() < until and not (escapes and SECRET in read):
                with suppress(OSError):
                    fd = open_file(root, PurePosixPath("real/file"), os.O_RDONLY)
                    text = os.read(fd, 100).decode()
                    os.close(fd)
                    read[text] = read.get(text, 0) + 1
    finally:
        stop.set()
        swapper.join()
    assert (SECRET in read) is escapes
    assert read.get("inside", 0) > 0 or escapes


def _swap(workspace: Path, stop: threading.Event) -> None:
    real, link, aside = workspace / "real", workspace / "link", workspace / "aside"
    while not stop.is_set():
        for first, second in ((real, link), (real, link)):
            first.rename(aside)
            second.rename(first)
            aside.rename(second)


@contextmanager
def _directory(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_PATH | os.O_DIRECTORY)
    try:
        yield fd
    finally:
        os.close(fd)
