"""Directories that a job writes to."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.doctor.disk import DirectoryFacts, directory_findings, read_directory
from orchestrator.doctor.finding import Area, Finding, Level

GIB = 1024**3
GOOD = DirectoryFacts(Path("/data/perstack"), True, True, 1000, 0o755, True, 50 * GIB, "ext4")  # noqa: FBT003
REMEDY = "name another directory with --storage"


def found(facts: DirectoryFacts, caller: int = 1000) -> list[tuple[Level, str, str]]:
    """Return level, check and text of each finding; each that is not `ok` has a remedy."""
    findings: list[Finding] = list(directory_findings(Area.STORE, "records", facts, caller, REMEDY))
    assert all((each.remedy is None) == (each.level is Level.OK) for each in findings)
    return [(each.level, each.check, each.found) for each in findings]


def test_a_good_directory_is_one_line() -> None:
    """The line has owner, mode, file system and free space."""
    line = "/data/perstack (owner 1000, mode 0755, ext4, 50.0 GiB free)"
    assert found(GOOD) == [(Level.OK, "records", line)]
    missing = replace(GOOD, exists=False)
    assert found(missing) == [
        (Level.OK, "records", "/data/perstack (does not exist yet and can be made, ext4, 50.0 GiB free)")
    ]


@pytest.mark.parametrize(
    ("changes", "level", "check", "text"),
    [
        ({"is_writable": False}, Level.PROBLEM, "records", "user 1000 cannot write to /data/perstack"),
        ({"is_directory": False}, Level.PROBLEM, "records", "is not a directory"),
        ({"owner": 1001}, Level.PROBLEM, "records", "belongs to another user, and you are user 1000"),
        ({"free": 500 * 1024**2}, Level.WARNING, "records space", "500 MiB left for /data/perstack"),
        ({"free": 1024**2}, Level.PROBLEM, "records space", "1 MiB left for /data/perstack"),
        ({"kind": "tmpfs"}, Level.WARNING, "records disk", "is in memory (tmpfs): a restart loses it"),
        ({"kind": "nfs4"}, Level.WARNING, "records disk", "is on a shared file system (nfs4)"),
    ],
)
def test_each_fault_has_its_finding(changes: dict[str, object], level: Level, check: str, text: str) -> None:
    """A fault is named with the directory; faults that let a job run are warnings."""
    faults = [each for each in found(replace(GOOD, **changes)) if each[0] is not Level.OK]  # type: ignore[arg-type] # one field each
    ((found_level, found_check, found_text),) = faults
    assert (found_level, found_check) == (level, check)
    assert text in found_text


@pytest.mark.parametrize("changes", [{"owner": 0}, {"owner": 5, "mode": 0o1777}, {"owner": 5, "exists": False}])
def test_directories_for_all_are_fine(changes: dict[str, object]) -> None:
    """One of root's that the caller may write, a sticky one such as /tmp, and one that will be the caller's own."""
    assert [level for level, *_ in found(replace(GOOD, **changes))] == [Level.OK]  # type: ignore[arg-type] # one field each


def test_facts_are_read_from_the_disk(tmp_path: Path) -> None:
    """A directory, a missing one below it, and a missing one below a file."""
    here = read_directory(tmp_path)
    assert (here.exists, here.is_directory, here.owner) == (True, True, os.geteuid())
    assert here.free > 0
    assert here.kind
    below = read_directory(tmp_path / "a" / "b")
    assert (below.path, below.exists, below.is_directory, below.is_writable) == (
        tmp_path / "a" / "b",
        False,
        True,
        True,
    )
    (tmp_path / "file").write_text("")
    assert not read_directory(tmp_path / "file" / "a").is_directory
    assert read_directory(Path("/proc/self")).kind == "proc"
