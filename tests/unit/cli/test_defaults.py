"""Defaults in help texts agree with the code; the texts do not import them, which would make `--help` slow."""

import re
from pathlib import Path

import pytest

from orchestrator.backends.cluster_settings import START_SECONDS
from orchestrator.cli.declare import described
from orchestrator.cli.options import RunOptions
from orchestrator.config import Config

CONFIG = Config(path=None, directory=Path())
OPTIONS = described(RunOptions)


@pytest.mark.parametrize("name", ["max_steps", "max_retries", "reasoning_budget", "timeout_ms"])
def test_a_help_text_gives_the_default_of_perstack_toml(name: str) -> None:
    """A help text ends with its default in brackets."""
    _, option, _ = OPTIONS[name]
    assert re.findall(r"\[(\w+)\]$", option.help) == [str(getattr(CONFIG, name))]


def test_the_env_files_of_help_are_those_that_are_read() -> None:
    """The help text has both names."""
    _, option, _ = OPTIONS["env_path"]
    assert re.findall(r"\.env(?:\.\w+)*", option.help) == list(CONFIG.env_path)


def test_a_pod_starts_in_the_same_time_with_and_without_the_option() -> None:
    """The option's default is the backend's."""
    assert OPTIONS["start_seconds"][2] == START_SECONDS
