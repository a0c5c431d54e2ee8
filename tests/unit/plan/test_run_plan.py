"""From a Job to its Sandboxes."""

from pathlib import Path

import pytest

from orchestrator.backends.cluster_settings import Claim, ClusterSetting
from orchestrator.config import load
from orchestrator.plan.job_options import JobOptions
from orchestrator.plan.make_job import make_job
from orchestrator.plan.run_plan import sandbox_spec
from orchestrator.sandbox.naming import DEADLINE

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
    """A Sandbox may wait an hour for a Run, plus the start limit in a cluster; without a Run limit it lives a day."""
    (tmp_path / "perstack.toml").write_text(
        '[provider]\nproviderName = "scripted"\n[experts.one]\ninstruction = "Do."\n'
    )
    monkeypatch.chdir(tmp_path)
    cluster = None
    if start_seconds is not None:
        (tmp_path / "claim").mkdir()
        cluster = ClusterSetting("default", Claim("claim", tmp_path / "claim"), (), start_seconds=start_seconds)
    job = make_job(
        "one", "", config=load(str(tmp_path / "perstack.toml")), env={},
        backend="docker" if cluster is None else "kubernetes",
        store=tmp_path / "perstack", cluster=cluster,
        options=JobOptions(run_as="1000:1000", run_seconds=run_seconds),
    )  # fmt: skip
    spec = sandbox_spec(job, 1, tmp_path / "state", NOW)
    assert (spec.deadline, spec.labels[DEADLINE]) == (NOW + lives, str(NOW + lives))
