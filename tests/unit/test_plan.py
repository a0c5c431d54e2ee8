"""From a Job to its Sandboxes, purely."""

from pathlib import Path

import pytest

from orchestrator.backends.kubernetes_setting import Claim, ClusterSetting
from orchestrator.backends.naming import DEADLINE
from orchestrator.config import load
from orchestrator.plan import sandbox_spec
from orchestrator.request import make_job
from orchestrator.sandbox import User

NOW = 1_800_000_000
HOUR = 60 * 60


@pytest.mark.parametrize(
    ("run_seconds", "start_seconds", "lives"),
    [
        (None, None, 24 * HOUR),
        (0.5, None, HOUR + 1),
        (48 * HOUR, None, 49 * HOUR),
        (48 * HOUR, 300, 49 * HOUR + 300),
        (float("inf"), None, 2**31),
    ],
)
def test_a_sandbox_lives_as_long_as_its_wait_and_its_run_may_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_seconds: float | None, start_seconds: float | None, lives: int
) -> None:
    """The wait is an hour, and in a cluster as long again as a start may take; a day where no Run has a limit."""
    (tmp_path / "perstack.toml").write_text(
        '[provider]\nproviderName = "scripted"\n[experts.one]\ninstruction = "Do."\n'
    )
    monkeypatch.chdir(tmp_path)
    cluster = None
    if start_seconds is not None:
        (tmp_path / "claim").mkdir()
        cluster = ClusterSetting("default", Claim("claim", tmp_path / "claim"), (), start_seconds=start_seconds)
    job = make_job(
        "one", "", config=load(str(tmp_path / "perstack.toml")), env={}, run_as=User(1000, 1000),
        backend="docker" if cluster is None else "kubernetes",
        store=tmp_path / "perstack", run_seconds=run_seconds, cluster=cluster,
    )  # fmt: skip
    spec = sandbox_spec(job, 1, tmp_path / "state", NOW)
    assert (spec.deadline, spec.labels[DEADLINE]) == (NOW + lives, str(NOW + lives))
