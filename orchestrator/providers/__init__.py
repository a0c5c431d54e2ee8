"""APIs of models behind one method; a file each, imported only when it is used."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from orchestrator.errors import ConfigError
from orchestrator.plugins import Plugins, did_you_mean
from orchestrator.providers.api import ModelRequest, OnDelta, Provider, ProviderSetting
from orchestrator.providers.spec import ModelSize, ProbeRequest, ProviderSpec, Tier

__all__ = [
    "PROVIDERS",
    "ModelRequest",
    "ModelSize",
    "OnDelta",
    "ProbeRequest",
    "Provider",
    "ProviderSetting",
    "ProviderSpec",
    "Tier",
    "open_provider",
    "require_known",
]

PROVIDERS = Plugins(
    ProviderSpec,
    noun="provider",
    group="perstack_orch.providers",
    builtin={
        "anthropic": "orchestrator.providers.anthropic.provider:SPEC",
        "google": "orchestrator.providers.google.provider:SPEC",
        "deepseek": "orchestrator.providers.deepseek:SPEC",
        "openai": "orchestrator.providers.openai.provider:SPEC",
        "ollama": "orchestrator.providers.ollama:SPEC",
        "azure-openai": "orchestrator.providers.azure_openai:SPEC",
        "amazon-bedrock": "orchestrator.providers.amazon_bedrock:SPEC",
        "google-vertex": "orchestrator.providers.google_vertex:SPEC",
        "scripted": "orchestrator.providers.scripted:SPEC",
    },
)


def require_known(name: str) -> ProviderSpec:
    """Return the description of the provider `name`, before anything starts.

    Raises:
        ConfigError: none exists that a Run can use; the message lists those that can be used.
    """
    found = PROVIDERS.find(name)
    if found is not None and found.connect is not None:
        return found
    known = sorted(_usable())
    suggestion = did_you_mean(name, tuple(known)) if found is None else ""
    message = f"provider {name!r} is not supported; use one of: {', '.join(known)}{suggestion}"
    raise ConfigError(message)


@asynccontextmanager
async def open_provider(setting: ProviderSetting) -> AsyncIterator[Provider]:
    """Connect to the API that `setting` names.

    Raises:
        ConfigError: no such provider exists, or its setting is not usable.
        MissingEnvError: its key has no value.
    """
    spec = require_known(setting.name)
    if spec.connect is None:
        return
    async with spec.connect(setting) as provider:
        yield provider


def _usable() -> list[str]:
    """List the providers that a Run can use; installed ones are listed without being imported."""
    unusable = {spec.name for spec in PROVIDERS.all_builtin() if spec.connect is None}
    return [name for name in PROVIDERS.names() if name not in unusable]
