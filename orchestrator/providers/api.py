"""The seam between the gateway and the APIs of models."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from orchestrator.wire.generation import Failure, Reply, ToolDefinition
from orchestrator.wire.message import Message

OnDelta = Callable[[Literal["reasoning", "text"], str], None]
"""Called with each piece of a reply as it arrives."""


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """One call of the model.

    `generation` counts the calls of this Expert's conversation from 0, over all its Runs. `reasoning_tokens` is the
    budget in tokens, 0 for none. `timeout` is seconds for the whole call.
    """

    expert_key: str
    generation: int
    model: str
    messages: tuple[Message, ...]
    tools: tuple[ToolDefinition, ...]
    reasoning_tokens: int
    timeout: float


@dataclass(frozen=True, slots=True)
class ProviderSetting:
    """How to reach an API: `[provider.setting]` of perstack.toml, the host's environment, the config's directory."""

    name: str
    setting: Mapping[str, Any]
    env: Mapping[str, str] = field(repr=False)
    directory: Path


class Provider(Protocol):
    """One LLM API."""

    async def generate(self, request: ModelRequest, on_delta: OnDelta) -> Reply | Failure:
        """Call the model once, without any retry.

        A stream that broke, or tool arguments that do not parse strictly, are a Failure, never a Reply.
        """
