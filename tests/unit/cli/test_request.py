"""From options to a job."""

import json
from pathlib import Path

import pytest

from orchestrator.cli import request
from orchestrator.cli.options import RunOptions

TOML = """
[provider]
providerName = "scripted"

[experts."one"]
instruction = "Work."
"""


@pytest.mark.parametrize(
    ("pods", "prewarm", "wish"),
    [({}, "auto", None), ({"queueName": "agents"}, "auto", 0), ({"queueName": "agents"}, "2", 2)],
    ids=["no queue", "a queue", "a queue, and somebody who knows"],
)
def test_nothing_is_prewarmed_in_a_queue(tmp_path: Path, pods: dict[str, str], prewarm: str, wish: int | None) -> None:
    """A Sandbox that waits for work holds a place there; unless it was asked for by number."""
    (tmp_path / "perstack.toml").write_text(TOML)
    (tmp_path / "replies.json").write_text("{}")
    (tmp_path / "pods.json").write_text(json.dumps(pods))
    options = RunOptions(
        expert_key="one",
        query="go",
        backend="kubernetes",
        coordinator="local",
        claim="u1",
        claim_mount=".",
        broker_address=("192.0.2.2",),
        pod_setting="pods.json",
        prewarm=prewarm,
    )
    config = request.configure(options, tmp_path)
    assert request.job(options, config, {}, tmp_path).prewarm == wish
