import os
from pathlib import Path

import pytest

from orchestrator.backends.process_record import ProcessRecord, ProcessRecords, started_at
from orchestrator.errors import BackendUnavailableError


def own_record(name: str = "j-s1") -> ProcessRecord:
    """Describe the test's own process."""
    return ProcessRecord(name, os.getpid(), started_at(os.getpid()) or 0, {"perstack.ai/job": "j"})


def test_what_is_kept_is_found(tmp_path: Path) -> None:
    """A record comes back whole, and with the last one the directory goes."""
    records = ProcessRecords(tmp_path / "ours")
    records.keep(own_record())
    assert (records.find("j-s1"), records.all()) == (own_record(), [own_record()])
    records.forget("j-s1")
    assert (records.find("j-s1"), records.all(), (tmp_path / "ours").exists()) == (None, [], False)


def test_a_number_that_now_is_another_process_is_not_found(tmp_path: Path) -> None:
    """The start time tells whose number it is."""
    records = ProcessRecords(tmp_path / "ours")
    records.keep(ProcessRecord("j-s1", os.getpid(), 1))
    assert records.find("j-s1") is None


def test_a_damaged_record_is_none(tmp_path: Path) -> None:
    """What cannot be read names no process."""
    records = ProcessRecords(tmp_path / "ours")
    records.keep(own_record())
    (tmp_path / "ours" / "j-s1.json").write_text("{")
    assert (records.find("j-s1"), records.all()) == (None, [])


@pytest.mark.parametrize("mode", [0o755, 0o777])
def test_a_directory_open_to_others_is_refused(tmp_path: Path, mode: int) -> None:
    """Else somebody could have us end another's process."""
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours").chmod(mode)
    with pytest.raises(BackendUnavailableError, match="open to other users"):
        ProcessRecords(tmp_path / "ours").keep(own_record())


def test_a_link_is_refused(tmp_path: Path) -> None:
    """Nor may the directory stand elsewhere."""
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (tmp_path / "ours").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BackendUnavailableError, match="open to other users"):
        ProcessRecords(tmp_path / "ours").keep(own_record())


def test_a_process_that_is_gone_never_started() -> None:
    """No number stays alive by itself."""
    assert started_at(2**22 + 1) is None
