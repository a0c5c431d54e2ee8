"""What is looked up about a share on this machine, without its engine."""

import os
from pathlib import Path

import pytest

from orchestrator.backends.docker import share_probe


def test_other_spellings_are_looked_up_by_the_files_that_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a disk where spellings are distinct nothing is found; a listing without an existing name shows folding."""
    assert not share_probe._folds(tmp_path / "absent")  # noqa: SLF001 - what the probe adds
    (tmp_path / ".env").write_text("secret")
    assert not share_probe._folds(tmp_path)  # noqa: SLF001 - the same
    (tmp_path / ".ENV").write_text("another")
    assert not share_probe._folds(tmp_path)  # noqa: SLF001 - the same
    listed = [entry for entry in os.scandir(tmp_path) if entry.name == ".env"]
    monkeypatch.setattr(os, "scandir", lambda _: iter(listed))
    assert share_probe._folds(tmp_path)  # noqa: SLF001 - the same
