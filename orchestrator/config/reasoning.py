"""How many tokens a model may spend on reasoning before it replies (docs/reference/perstack.md#reasoning)."""

from orchestrator.errors import ConfigError

_TOKENS = {"none": 0, "minimal": 1024, "low": 2048, "medium": 5000, "high": 10_000}

REASONING_BUDGET = f"one of {', '.join(_TOKENS)}, or a whole number of tokens"
"""The accepted values, in words."""


def is_reasoning_budget(value: object) -> bool:
    """Whether `value` is a level or a number of tokens, 0 or more."""
    if isinstance(value, str):
        return value in _TOKENS
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def reasoning_tokens(budget: str | int) -> int:
    """Return the tokens of a level; a number is returned unchanged; 0 means no reasoning."""
    return _TOKENS[budget] if isinstance(budget, str) else budget


def parse_reasoning_budget(text: str) -> str | int:
    """Parse `--reasoning-budget`. Perstack ignores an invalid value; here it is an error.

    Raises:
        ConfigError: it is neither a level nor a number of tokens.
    """
    value = int(text) if text.isascii() and text.isdecimal() else text
    if not is_reasoning_budget(value):
        message = f"reasoning budget {text!r} is not usable; give {REASONING_BUDGET}"
        raise ConfigError(message)
    return value
