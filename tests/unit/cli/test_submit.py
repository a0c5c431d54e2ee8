"""What of a project goes to the cluster that is to work its job."""

from pathlib import Path

import pytest
import tomli_w

from orchestrator.cli import request
from orchestrator.cli.options import RunOptions
from orchestrator.cli.submit import files_of
from orchestrator.config import load
from orchestrator.config.lock import lock_document
from orchestrator.mounted import record
from orchestrator.wire.job_request import CONFIG, LOCK

TOML = '[experts.one]\ninstruction = "Work."\n'


def test_a_lock_that_does_not_count_here_is_not_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There it would seem to have been named."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    site = tmp_path / "site"
    site.mkdir()
    (site / "perstack.toml").write_text(TOML)
    experts = load(site / "perstack.toml").experts
    (site / "perstack.lock").write_text(tomli_w.dumps(lock_document(experts, {}, "perstack.toml", 1)))
    options = RunOptions(expert_key="one", query="go", backend="kubernetes", config=str(site / "perstack.toml"))
    assert files_of(options, request.configure(options, tmp_path), tmp_path).keys() == {CONFIG, LOCK}
    record(site)
    config = request.configure(options, tmp_path)
    assert files_of(options, config, tmp_path).keys() == {CONFIG}
    assert "perstack.lock is in" in config.notes[0]
