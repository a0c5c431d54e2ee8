"""A file that a tool changes contains the new content or the old, whatever fails."""

import errno
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from orchestrator.runtime.tools import ToolError, replace, text_file
from tests.support.traces import outside_directory

OLD = b"old content\n" * 1000
ROOM = 4 * 1024
"""The largest file in these tests, in bytes; the limit simulates a full disk."""

Write = Callable[[Path, bytes], None]

WRITES: dict[str, Write] = {
    "write": lambda workspace, data: text_file.write(workspace, "a", data),
    "edit": lambda workspace, data: text_file.edit(workspace, "a", lambda _: data),
    "add": lambda workspace, data: text_file.add(workspace, "a", data),
}


@contextmanager
def _files_no_larger_than(size: int) -> Iterator[None]:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def _names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


@pytest.fixture
def no_nameless_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse files without a name as an old kernel does: it takes the flag for that of a directory."""
    monkeypatch.setattr(os, "O_TMPFILE", os.O_DIRECTORY)


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A directory that every user of this machine can access."""
    with outside_directory() as directory:
        directory.chmod(0o755)
        yield directory


def _write_as_another(workspace: Path, prepared: str = "") -> subprocess.CompletedProcess[str]:
    """Write "new" to the file `a` as an unprivileged user in separate mounts; print its content afterwards."""
    program = (
        "import os, sys; from pathlib import Path; from orchestrator.runtime.tools import text_file\n"
        "os.setgroups([]); os.setgid(4242); os.setuid(4242)\n"
        "text_file.write(Path(sys.argv[1]), 'a', b'new'); print((Path(sys.argv[1]) / 'a').read_text())"
    )
    script = f'{prepared} exec "$2" -c "$3" "$1"'
    command = ("unshare", "--mount", "sh", "-c", script, "sh", str(workspace), sys.executable, program)
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("names", [1, 2])
@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_what_does_not_fit_leaves_the_old_content(write: Write, names: int, tmp_path: Path) -> None:
    """A failed write leaves the old content, also in a file with two names, which is written in place."""
    (tmp_path / "a").write_bytes(OLD)
    for number in range(1, names):
        (tmp_path / f"name-{number}").hardlink_to(tmp_path / "a")
    listed = _names(tmp_path)
    with _files_no_larger_than(len(OLD) + ROOM), pytest.raises(ToolError, match="File too large"):
        write(tmp_path, b"n" * (len(OLD) + 2 * ROOM))
    assert (tmp_path / "a").read_bytes() == OLD
    assert _names(tmp_path) == listed
    write(tmp_path, b"new")
    assert (tmp_path / "a").read_bytes().removeprefix(OLD) == b"new"


def test_a_new_file_that_does_not_fit_is_not_there(tmp_path: Path) -> None:
    """No part of the new file exists."""
    with _files_no_larger_than(ROOM), pytest.raises(ToolError, match="File too large"):
        text_file.write(tmp_path, "a", b"n" * (ROOM + 1))
    assert _names(tmp_path) == []


@pytest.mark.usefixtures("no_nameless_files")
def test_file_systems_without_nameless_files(tmp_path: Path) -> None:
    """Files are created, replaced or, if the disk is full, left unchanged, with no temporary files left."""
    text_file.write(tmp_path, "a", OLD)
    text_file.write(tmp_path, "a", b"new")
    with _files_no_larger_than(ROOM):
        for name in ("a", "b"):
            with pytest.raises(ToolError, match="File too large"):
                text_file.write(tmp_path, name, b"n" * (ROOM + 1))
    assert {name: (tmp_path / name).read_bytes() for name in _names(tmp_path)} == {"a": b"new"}


def test_mode_owner_and_attributes_are_kept(tmp_path: Path) -> None:
    """They are kept, except set-user-id, which the kernel also drops from a changed file."""
    file = tmp_path / "a"
    file.write_bytes(OLD)
    owner = (4242, 4243) if os.geteuid() == 0 else (os.geteuid(), os.getegid())
    os.chown(file, *owner)
    file.chmod(0o4751)
    os.setxattr(file, "user.origin", b"here")
    before = file.stat()
    text_file.write(tmp_path, "a", b"new")
    after = file.stat()
    assert file.read_bytes() == b"new"
    assert after.st_ino != before.st_ino
    assert (after.st_uid, after.st_gid, oct(after.st_mode & 0o7777)) == (*owner, "0o751")
    assert os.getxattr(file, "user.origin") == b"here"


def test_all_names_of_a_file_show_its_new_content(tmp_path: Path) -> None:
    """A file with several names stays one file."""
    (tmp_path / "a").write_bytes(OLD)
    (tmp_path / "b").hardlink_to(tmp_path / "a")
    for content in (b"new", OLD + OLD):
        text_file.write(tmp_path, "a", content)
        assert ((tmp_path / "b").read_bytes(), (tmp_path / "a").stat().st_nlink) == (content, 2)


def test_a_large_file_that_must_be_written_in_place(tmp_path: Path) -> None:
    """Its old content is too large for memory, so it is left unchanged."""
    with (tmp_path / "a").open("wb") as file:
        file.truncate(replace.IN_PLACE_BYTES + 1)
    (tmp_path / "b").hardlink_to(tmp_path / "a")
    with pytest.raises(ToolError, match="write a new file instead"):
        text_file.write(tmp_path, "a", b"new")
    assert (tmp_path / "a").stat().st_size == replace.IN_PLACE_BYTES + 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user, and mount")
@pytest.mark.parametrize("reason", ["directory", "mount point", "sticky directory"])
def test_where_a_file_cannot_be_exchanged_it_is_written_in_place(reason: str, open_directory: Path) -> None:
    """The directory is not writable, the file is a mount point, or only its owner may replace it."""
    file = open_directory / "a"
    file.write_bytes(OLD)
    file.chmod(0o666)
    open_directory.chmod({"directory": 0o755, "mount point": 0o777, "sticky directory": 0o1777}[reason])
    mount = 'mount -t tmpfs tmpfs /mnt && cp -p "$1/a" /mnt/a && mount --bind /mnt/a "$1/a" && '
    written = _write_as_another(open_directory, mount if reason == "mount point" else "")
    assert (written.stdout, written.stderr) == ("new\n", "")
    assert file.read_bytes() == (OLD if reason == "mount point" else b"new")
    assert _names(open_directory) == ["a"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_file_that_may_not_be_written_is_not_exchanged_either(open_directory: Path) -> None:
    """A file without write permission stays unchanged even in a writable directory."""
    (open_directory / "a").write_bytes(OLD)
    open_directory.chmod(0o777)
    assert "path 'a': permission denied" in _write_as_another(open_directory).stderr
    assert (open_directory / "a").read_bytes() == OLD


def test_an_edit_is_made_of_what_another_process_has_written_meanwhile(tmp_path: Path) -> None:
    """No change of the other process is lost."""
    (tmp_path / "a").write_bytes(b"one\n")
    seen: list[bytes] = []

    def change(content: bytes) -> bytes:
        seen.append(content)
        if len(seen) == 1:
            with (tmp_path / "a").open("ab") as file:
                file.write(b"two\n")
        return content + b"three\n"

    text_file.edit(tmp_path, "a", change)
    assert (tmp_path / "a").read_bytes() == b"one\ntwo\nthree\n"
    assert seen == [b"one\n", b"one\ntwo\n"]


@pytest.mark.parametrize("names", [1, 2])
def test_an_edit_of_a_file_that_changes_all_the_time_is_given_up(names: int, tmp_path: Path) -> None:
    """The tool returns an error, and the file has the content of the other process."""
    (tmp_path / "a").write_bytes(b"")
    for number in range(1, names):
        (tmp_path / f"name-{number}").hardlink_to(tmp_path / "a")

    def change(content: bytes) -> bytes:
        with (tmp_path / "a").open("ab") as file:
            file.write(b".")
        return content

    with pytest.raises(ToolError, match="changed by another process all the time, so nothing was written"):
        text_file.edit(tmp_path, "a", change)
    assert set((tmp_path / "a").read_bytes()) == set(b".")


def test_an_edit_of_a_file_that_is_deleted_meanwhile(tmp_path: Path) -> None:
    """The deleted file is not created again."""
    (tmp_path / "a").write_bytes(OLD)

    def change(content: bytes) -> bytes:
        (tmp_path / "a").unlink()
        return content

    with pytest.raises(ToolError, match="it does not exist"):
        text_file.edit(tmp_path, "a", change)
    assert _names(tmp_path) == []


def test_readers_see_the_old_content_or_the_new(tmp_path: Path) -> None:
    """Readers never see a part of a content."""
    contents = [bytes([letter]) * 300_000 for letter in b"ab"]
    (tmp_path / "a").write_bytes(contents[0])
    over, read = threading.Event(), set[bytes]()

    def keep_reading() -> None:
        while not over.is_set():
            read.add((tmp_path / "a").read_bytes())

    reader = threading.Thread(target=keep_reading)
    reader.start()
    for _ in range(100):
        for content in contents:
            text_file.write(tmp_path, "a", content)
    over.set()
    reader.join(60)
    assert read <= set(contents)


def test_a_writer_that_is_killed_leaves_one_content_whole(tmp_path: Path) -> None:
    """Twelve writers are killed in the middle of their work; the file is complete each time."""
    program = (
        "import sys; from pathlib import Path; from orchestrator.runtime.tools import text_file\n"
        "print(flush=True)\n"
        "while True:\n"
        "  for letter in b'ab': text_file.write(Path(sys.argv[1]), 'a', bytes([letter]) * 3_000_000)"
    )
    (tmp_path / "a").write_bytes(b"a" * 3_000_000)
    for number in range(12):
        with subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            writer.stdout.readline()
            time.sleep(number / 400)
            writer.send_signal(signal.SIGKILL)
        content = (tmp_path / "a").read_bytes()
        assert (len(content), len(set(content))) == (3_000_000, 1)


def test_a_part_that_was_added_is_taken_back_only_where_nothing_followed(tmp_path: Path) -> None:
    """Data that another process wrote after it remains."""
    (tmp_path / "a").write_bytes(OLD)
    with (tmp_path / "a").open("ab") as other:
        other.write(b"of another process")
    with (tmp_path / "a").open("ab") as file:
        replace.take_back(file.fileno(), len(OLD), b"mine" * 100)
    assert (tmp_path / "a").read_bytes() == OLD + b"of another process"


def test_the_kernels_other_reasons_are_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error while the new file is written does not cause a write in place, which would destroy the old content."""
    (tmp_path / "a").write_bytes(OLD)

    def fail(_fd: int, _data: bytes) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", fail)
        with pytest.raises(ToolError, match="Input/output error"):
            text_file.write(tmp_path, "a", b"new")
    assert (tmp_path / "a").read_bytes() == OLD
