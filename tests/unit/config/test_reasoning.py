import pytest

from orchestrator.config.reasoning import parse_reasoning_budget, reasoning_tokens
from orchestrator.errors import ConfigError


@pytest.mark.behaviour("A12")
@pytest.mark.parametrize(
    ("text", "budget", "tokens"),
    [
        ("none", "none", 0),
        ("minimal", "minimal", 1024),
        ("low", "low", 2048),
        ("medium", "medium", 5000),
        ("high", "high", 10_000),
        ("0", 0, 0),
        ("777", 777, 777),
    ],
)
def test_levels_and_numbers_are_read(text: str, budget: str | int, tokens: int) -> None:
    """Levels and numbers are converted, `none` included."""
    assert parse_reasoning_budget(text) == budget
    assert reasoning_tokens(budget) == tokens


@pytest.mark.behaviour("A12")
@pytest.mark.parametrize("text", ["huge", "", "-1", "1.5", "²", "LOW"])
def test_any_other_budget_is_an_error(text: str) -> None:
    """A budget that silently becomes another costs money, so it is an error here, unlike in Perstack."""
    with pytest.raises(ConfigError) as raised:
        parse_reasoning_budget(text)
    assert str(raised.value) == (
        f"reasoning budget {text!r} is not usable; give one of none, minimal, low, medium, high, "
        "or a whole number of tokens"
    )
