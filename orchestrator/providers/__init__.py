"""LLM APIs behind one verb; a file each, imported only when used."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, Protocol

from orchestrator.errors import ConfigError
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


_MODULES = {
    "scripted": "scripted",
    "anthropic": "anthropic",
    "openai": "openai",
    "azure-openai": "azure_openai",
    "ollama": "ollama",
    "deepseek": "deepseek",
    "google": "google",
}
_EXTRAS = {"anthropic": "anthropic", "openai": "openai", "google": "google", "google.genai": "google"}
"""Module of an SDK -> the extra that installs it."""


def require_known(name: str) -> None:
    """Check that somebody here speaks the API of that name, before anything is begun.

    Raises:
        ConfigError: nobody does; lists the names that are known.
    """
    if name not in _MODULES:
        known = ", ".join(sorted(_MODULES))
        message = f"provider {name!r} is not supported; use one of: {known}"
        raise ConfigError(message)


@asynccontextmanager
async def open_provider(setting: ProviderSetting) -> AsyncIterator[Provider]:
    """Connect to the API that `setting` names.

    Raises:
        ConfigError: nobody here speaks it, its package is not installed, or its setting is not usable.
        MissingEnvError: its key has no value.
    """
    require_known(setting.name)
    module = _MODULES[setting.name]
    opened: AbstractAsyncContextManager[Provider] = import_module(f"orchestrator.providers.{module}").connect(setting)
    async with AsyncExitStack() as stack:
        try:
            provider = await stack.enter_async_context(opened)
        except ModuleNotFoundError as error:
            if error.name not in _EXTRAS:
                raise
            message = f"provider {setting.name!r} needs its package; install perstack-orch[{_EXTRAS[error.name]}]"
            raise ConfigError(message) from error
        yield provider
