import os
from pathlib import Path

import pytest

from orchestrator.backends.process.process_records import ProcessRecord, ProcessRecords, started_at
from orchestrator.errors import BackendUnavailableError


def own_record(name: str = "j-s1") -> ProcessRecord:
    """Describe the test's own process."""
    return ProcessRecord(name, os.getpid(), started_at(os.getpid()) or 0, {"perstack.ai/job": "j"})


def test_what_is_kept_is_found(tmp_path: Path) -> None:
    """A record is read back unchanged, and the directory is removed with the last one."""
    records = ProcessRecords(tmp_path / "ours")
    records.keep(own_record())
    assert (records.find("j-s1"), records.all()) == (own_record(), [own_record()])
    records.forget("j-s1")
    assert (records.find("j-s1"), records.all(), (tmp_path / "ours").exists()) == (None, [], False)


def test_what_a_killed_process_began_to_write_keeps_no_directory(tmp_path: Path) -> None:
    """The last record takes it along, but not what another process may be writing right now."""
    records, began, begins = ProcessRecords(tmp_path / "ours"), f".j-s2.json.{'0' * 32}", f".j-s3.json.{'1' * 32}"
    for _ in range(2):
        records.keep(own_record())
        (tmp_path / "ours" / began).touch()
        os.utime(tmp_path / "ours" / began, (0, 0))
        (tmp_path / "ours" / begins).touch()
        records.forget("j-s1")
        assert [path.name for path in (tmp_path / "ours").iterdir()] == [begins]
    os.utime(tmp_path / "ours" / begins, (0, 0))
    records.forget("j-s1")
    assert not (tmp_path / "ours").exists()


def test_a_number_that_now_is_another_process_is_not_found(tmp_path: Path) -> None:
    """The start time detects a reused pid."""
    records = ProcessRecords(tmp_path / "ours")
    records.keep(ProcessRecord("j-s1", os.getpid(), 1))
    assert records.find("j-s1") is None


def test_a_damaged_record_is_none(tmp_path: Path) -> None:
    """A damaged record names no process."""
    records = ProcessRecords(tmp_path / "ours")
    records.keep(own_record())
    (tmp_path / "ours" / "j-s1.json").write_text("{")
    assert (records.find("j-s1"), records.all()) == (None, [])


@pytest.mark.parametrize("mode", [0o755, 0o777])
def test_a_directory_open_to_others_is_refused(tmp_path: Path, mode: int) -> None:
    """A directory that other users may enter is refused: they could make us kill a process."""
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours").chmod(mode)
    with pytest.raises(BackendUnavailableError, match="open to other users"):
        ProcessRecords(tmp_path / "ours").keep(own_record())


def test_a_link_is_refused(tmp_path: Path) -> None:
    """The directory may not be a symbolic link."""
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (tmp_path / "ours").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BackendUnavailableError, match="open to other users"):
        ProcessRecords(tmp_path / "ours").keep(own_record())


def test_a_process_that_is_gone_never_started() -> None:
    """An unused pid has no start time."""
    assert started_at(2**22 + 1) is None
