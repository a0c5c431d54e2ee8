"""What differs between Linux and macOS."""

import fcntl
import os
import sys
from pathlib import Path

import pytest

from orchestrator.disk.system import real_path, sync_to_disk

_FULL_SYNC = 51
"""F_FULLFSYNC of macOS, which Linux refuses."""


@pytest.mark.parametrize("supported", [True, False])
def test_macos_empties_the_disks_own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, supported: bool) -> None:
    """Only F_FULLFSYNC does that there; a file system that has no such command still gets fsync."""
    calls: list[str] = []
    refuse, sync = fcntl.fcntl, os.fsync

    def command(file: int, number: int) -> int:
        calls.append(f"fcntl {number}")
        return 0 if supported else refuse(file, number)

    def fsync(file: int) -> None:
        calls.append("fsync")
        sync(file)

    monkeypatch.setattr(fcntl, "F_FULLFSYNC", _FULL_SYNC, raising=False)
    monkeypatch.setattr(fcntl, "fcntl", command)
    monkeypatch.setattr(os, "fsync", fsync)
    with (tmp_path / "file").open("wb") as file:
        sync_to_disk(file.fileno())
        assert calls == ["fsync"]
        monkeypatch.setattr(sys, "platform", "darwin")
        sync_to_disk(file.fileno())
    assert calls[1:] == (["fcntl 51"] if supported else ["fcntl 51", "fsync"])


def test_a_real_path_has_the_spelling_of_the_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On macOS the system gives it for what exists, and the rest stays as it was named."""
    (tmp_path / "link").symlink_to("Real")
    (tmp_path / "Real").mkdir()
    assert real_path(tmp_path / "link" / "new") == tmp_path / "Real" / "new"
    spelling = os.fsencode(tmp_path / "rEAL")
    monkeypatch.setattr(fcntl, "F_GETPATH", 50, raising=False)
    monkeypatch.setattr(fcntl, "fcntl", lambda _file, _command, buffer: spelling.ljust(len(buffer), b"\0"))
    monkeypatch.setattr(sys, "platform", "darwin")
    assert real_path(tmp_path / "link" / "new") == tmp_path / "rEAL" / "new"
