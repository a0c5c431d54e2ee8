"""From options to a job."""

import json
from pathlib import Path

import pytest

from orchestrator.cli.build_job import build_job, load_config, without_model
from orchestrator.cli.options import RunOptions

TOML = """
[provider]
providerName = "scripted"

[experts."one"]
instruction = "Work."
"""


@pytest.mark.parametrize(
    ("pods", "prewarm", "requested"),
    [({}, "auto", None), ({"queueName": "agents"}, "auto", 0), ({"queueName": "agents"}, "2", 2)],
    ids=["no queue", "a queue", "a queue and a number"],
)
def test_nothing_is_prewarmed_in_a_queue(
    tmp_path: Path, pods: dict[str, str], prewarm: str, requested: int | None
) -> None:
    """With a queue, no Sandboxes are prewarmed unless the option gives a number: they would occupy places in it."""
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
    config = load_config(options, tmp_path)
    assert build_job(options, config, {}, tmp_path).prewarm == requested


def test_a_command_that_calls_no_model_needs_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether perstack.toml or an option names the provider, its key and its setting are not looked at."""
    monkeypatch.chdir(tmp_path)
    toml = '[provider]\nproviderName = "anthropic"\nsetting = { headers = { authorization = "canary" } }\n'
    (tmp_path / "perstack.toml").write_text(f'{toml}[experts.one]\ninstruction = "Work."\n')
    (tmp_path / "w").mkdir()
    for provider in (None, "openai"):
        options = RunOptions(expert_key="one", backend="process", workspace="w", provider=provider, max_steps=7)
        made = build_job(without_model(options), load_config(options, tmp_path), {}, tmp_path)
        assert (made.provider_name, made.secrets, made.max_steps) == ("scripted", (), 7)
