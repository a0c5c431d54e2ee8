"""Prices of models: list prices as their vendors published them in January 2026, in US dollars.

They change without notice; discounts, batches, long prompts and cache writes have other prices. So the results are
estimates. `--prices` names a file with other prices.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.disk.plain_file import HAND_WRITTEN_BYTES, read_plain
from orchestrator.errors import ConfigError
from orchestrator.wire.usage import Usage

_MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars per million tokens: uncached input, cached input, output (reasoning included)."""

    input: float
    cached_input: float
    output: float

    def of(self, usage: Usage) -> float:
        """The cost of `usage` in US dollars."""
        read = usage.input_tokens * self.input + usage.cached_input_tokens * self.cached_input
        return (read + usage.output_tokens * self.output) / _MILLION


Prices = Mapping[tuple[str, str], Price]
"""Prices by provider and model."""

_OPUS = Price(15, 1.5, 75)
_SONNET = Price(3, 0.3, 15)
_GPT_5 = Price(1.25, 0.125, 10)
_O = Price(1.1, 0.275, 4.4)
_LARGE = Price(2, 0.5, 8)
_DEEPSEEK = Price(0.28, 0.028, 0.42)

LIST_PRICES: Prices = {
    ("anthropic", "claude-opus-4-5"): Price(5, 0.5, 25),
    ("anthropic", "claude-opus-4-1"): _OPUS,
    ("anthropic", "claude-opus-4-20250514"): _OPUS,
    ("anthropic", "claude-sonnet-4-5"): _SONNET,
    ("anthropic", "claude-sonnet-4-20250514"): _SONNET,
    ("anthropic", "claude-3-7-sonnet-20250219"): _SONNET,
    ("anthropic", "claude-haiku-4-5"): Price(1, 0.1, 5),
    ("anthropic", "claude-3-5-haiku-latest"): Price(0.8, 0.08, 4),
    ("google", "gemini-3-pro-preview"): Price(2, 0.2, 12),
    ("google", "gemini-2.5-pro"): Price(1.25, 0.125, 10),
    ("google", "gemini-2.5-flash"): Price(0.3, 0.03, 2.5),
    ("google", "gemini-2.5-flash-lite"): Price(0.1, 0.01, 0.4),
    ("openai", "gpt-5"): _GPT_5,
    ("openai", "gpt-5-chat-latest"): _GPT_5,
    ("openai", "gpt-5-mini"): Price(0.25, 0.025, 2),
    ("openai", "gpt-5-nano"): Price(0.05, 0.005, 0.4),
    ("openai", "o4-mini"): _O,
    ("openai", "o3-mini"): Price(1.1, 0.55, 4.4),
    ("openai", "o3"): _LARGE,
    ("openai", "gpt-4.1"): _LARGE,
    ("deepseek", "deepseek-chat"): _DEEPSEEK,
    ("deepseek", "deepseek-reasoner"): _DEEPSEEK,
}


def read_prices(path: Path) -> Prices:
    """Override list prices by a file: a TOML table `["PROVIDER/MODEL"]` with `input`, `cachedInput` and `output` each.

    Without `cachedInput`, cached input costs as much as uncached input.

    Raises:
        ConfigError: the file is missing, or not of this shape; the message names the table.
    """
    try:
        tables = tomllib.loads(read_plain(path, HAND_WRITTEN_BYTES).decode())
    except (OSError, ValueError) as error:
        message = f"the prices in {path} cannot be read: {error}; choose another file with --prices"
        raise ConfigError(message) from error
    return {**LIST_PRICES, **{_model(path, name): _price(path, name, table) for name, table in tables.items()}}


def _model(path: Path, name: str) -> tuple[str, str]:
    provider, slash, model = name.partition("/")
    if not (provider and slash and model):
        message = f'{path}: {name!r} is not a valid name; write ["PROVIDER/MODEL"]'
        raise ConfigError(message)
    return provider, model


def _price(path: Path, name: str, table: Any) -> Price:
    given = table if isinstance(table, dict) else {}
    cached = given.get("cachedInput", given.get("input"))
    found: tuple[Any, ...] = (given.get("input"), cached, given.get("output"))
    if not given.keys() <= {"input", "cachedInput", "output"} or not all(map(_is_amount, found)):
        message = f"{path}: {name!r} needs input and output, and may have cachedInput: US dollars per million tokens"
        raise ConfigError(message)
    return Price(*(float(amount) for amount in found))


def _is_amount(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value >= 0
