"""Token limits of models."""

import pytest

from orchestrator.providers.models import context_window, max_output


@pytest.mark.parametrize(
    ("provider", "model", "window", "output"),
    [
        ("anthropic", "claude-sonnet-4-5", 200_000, 64_000),
        ("openai", "gpt-5", 400_000, 128_000),
        ("ollama", "gemma3:1b", 32_000, None),
        ("anthropic", "gpt-5", None, None),
        ("azure-openai", "gpt-5", None, None),
    ],
)
def test_known_by_exact_name(provider: str, model: str, window: int | None, output: int | None) -> None:
    """Only the exact pair of provider and model has limits."""
    assert (context_window(provider, model), max_output(provider, model)) == (window, output)
