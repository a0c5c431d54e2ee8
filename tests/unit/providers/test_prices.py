from pathlib import Path

import pytest

from orchestrator.errors import ConfigError
from orchestrator.providers.prices import LIST_PRICES, Price, read_prices
from orchestrator.wire.usage import Usage


def test_what_a_conversation_costs() -> None:
    """Cached tokens have their own price; reasoning is part of the output and not counted twice."""
    usage = Usage(
        input_tokens=1000, cached_input_tokens=4000, output_tokens=200, reasoning_tokens=50, total_tokens=5200
    )
    assert Price(3, 0.3, 15).of(usage) == pytest.approx(0.003 + 0.0012 + 0.003)


def test_own_prices_go_before_the_list(tmp_path: Path) -> None:
    """Models not in the file keep their list price; without cachedInput, cached tokens cost as much as others."""
    file = tmp_path / "prices.toml"
    file.write_text(
        '["anthropic/claude-sonnet-4-5"]\ninput = 1\noutput = 2.5\n'
        '["openai/org/model"]\ninput = 0\ncachedInput = 0.5\noutput = 0\n'
    )
    prices = read_prices(file)
    assert prices["anthropic", "claude-sonnet-4-5"] == Price(1, 1, 2.5)
    assert prices["openai", "org/model"] == Price(0, 0.5, 0)
    assert prices["openai", "gpt-5"] == LIST_PRICES["openai", "gpt-5"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[x", "cannot be read"),
        ("[model]\ninput = 1\noutput = 1\n", "PROVIDER/MODEL"),
        ('["a/b"]\ninput = 1\n', "needs input and output"),
        ('["a/b"]\ninput = -1\noutput = 1\n', "needs input and output"),
        ('["a/b"]\ninput = true\noutput = 1\n', "needs input and output"),
        ('["a/b"]\ninput = 1\noutput = 1\ncached = 1\n', "needs input and output"),
        ('"a/b" = 3\n', "needs input and output"),
    ],
)
def test_prices_that_cannot_be_used(tmp_path: Path, text: str, words: str) -> None:
    """The error is one sentence with the file and the table."""
    file = tmp_path / "prices.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=words) as caught:
        read_prices(file)
    assert str(file) in str(caught.value)


def test_a_missing_file_of_prices(tmp_path: Path) -> None:
    """The error names the option for another file."""
    with pytest.raises(ConfigError, match="--prices"):
        read_prices(tmp_path / "absent.toml")
