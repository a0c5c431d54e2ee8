"""perstack.toml and the environment, read once on the host into frozen values.

See docs/reference/perstack.md#perstacktoml.
"""

from orchestrator.config.config import Config
from orchestrator.config.file import find
from orchestrator.config.load import load
from orchestrator.config.reasoning import parse_reasoning_budget, reasoning_tokens

__all__ = ["Config", "find", "load", "parse_reasoning_budget", "reasoning_tokens"]
