"""Which directory contains which, under any of their names."""

import sys
from pathlib import Path

import pytest

from orchestrator.disk.containment import is_within, names_below


def test_the_names_below_a_directory_are_given(tmp_path: Path) -> None:
    """A path below gives its names, the directory itself gives none, and any other path is not below."""
    (tmp_path / "outer" / "inner").mkdir(parents=True)
    outer = tmp_path / "outer"
    assert names_below(outer / "inner" / "new" / "file", outer) == ("inner", "new", "file")
    assert names_below(outer, outer) == ()
    assert names_below(tmp_path, outer) is None
    assert names_below(tmp_path / "outer-2", outer) is None


def test_a_directory_counts_under_each_of_its_paths(tmp_path: Path) -> None:
    """Device and inode decide: a second path of a directory, here by a link, leads to the same directory."""
    (tmp_path / "outer" / "inner").mkdir(parents=True)
    (tmp_path / "other").symlink_to("outer")
    assert names_below(tmp_path / "other" / "inner" / "new", tmp_path / "outer") == ("inner", "new")
    assert names_below(tmp_path / "outer" / "inner" / "new", tmp_path / "other") == ("inner", "new")
    assert not is_within(tmp_path / "other", tmp_path / "outer" / "inner")


def test_what_does_not_exist_is_compared_by_name(tmp_path: Path) -> None:
    """Below the nearest directory that exists, names decide."""
    (tmp_path / "outer").mkdir()
    (tmp_path / "other").symlink_to("outer")
    assert names_below(tmp_path / "other" / "a" / "b" / "c", tmp_path / "outer" / "a") == ("b", "c")
    assert not is_within(tmp_path / "other" / "a", tmp_path / "outer" / "a" / "b")
    assert not is_within(tmp_path / "other" / "A" / "b", tmp_path / "outer" / "a")


@pytest.mark.parametrize(("one", "other"), [("Work", "work"), ("caf\u00e9", "cafe\u0301")])
def test_two_spellings_are_one_directory_on_macos(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one: str, other: str
) -> None:
    """Letter case and Unicode forms make no difference there, also before the directory exists."""
    assert not is_within(tmp_path / one / "store", tmp_path / other)
    monkeypatch.setattr(sys, "platform", "darwin")
    assert is_within(tmp_path / one / "store", tmp_path / other)
    assert not is_within(tmp_path / "elsewhere", tmp_path / other)
