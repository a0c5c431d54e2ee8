"""The files of a project that a submitted job takes to the cluster."""

from pathlib import Path

import pytest
import tomli_w

from orchestrator.cli.build_job import load_config
from orchestrator.cli.cluster_job import read_files
from orchestrator.cli.options import RunOptions
from orchestrator.cluster.job_request import CONFIG, LOCK
from orchestrator.config import load
from orchestrator.config.lock_file import lock_document
from orchestrator.disk.mount_registry import record_mount

TOML = '[experts.one]\ninstruction = "Work."\n'


def test_a_lock_that_is_ignored_here_is_not_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock in a directory that was mounted is not among the files; before, it is."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    site = tmp_path / "site"
    site.mkdir()
    (site / "perstack.toml").write_text(TOML)
    experts = load(site / "perstack.toml").experts
    (site / "perstack.lock").write_text(tomli_w.dumps(lock_document(experts, {}, "perstack.toml", 1)))
    options = RunOptions(expert_key="one", query="go", backend="kubernetes", config=str(site / "perstack.toml"))
    assert read_files(options, load_config(options, tmp_path), tmp_path).keys() == {CONFIG, LOCK}
    record_mount(site)
    config = load_config(options, tmp_path)
    assert read_files(options, config, tmp_path).keys() == {CONFIG}
    assert "perstack.lock is in" in config.notes[0]
