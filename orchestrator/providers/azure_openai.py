"""Azure OpenAI."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from orchestrator.errors import ConfigError
from orchestrator.providers import Provider, ProviderSetting
from orchestrator.providers.endpoint import base_url, headers, option, secret
from orchestrator.providers.openai_chat import Access, open_chat
from orchestrator.providers.openai_request import Dialect

_KEY = "AZURE_API_KEY"
_RESOURCE = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?", re.ASCII)


@asynccontextmanager
async def connect(setting: ProviderSetting) -> AsyncIterator[Provider]:
    """Make a client of the API.

    Raises:
        ConfigError: neither a resource nor a base URL is named, or one that is not usable.
        MissingEnvError: AZURE_API_KEY has no value.
    """
    async with open_chat(setting, _access(setting, secret(setting, _KEY)), Dialect(_KEY)) as provider:
        yield provider


def _access(setting: ProviderSetting, key: str) -> Access:
    """Deployments in the URL where asked for; else the newer form, whose calls name the model in their body."""
    url = base_url(setting, "AZURE_BASE_URL", _resource_url(setting))
    query = {"api-version": option(setting, "apiVersion", "AZURE_API_VERSION") or "v1"}
    if setting.setting.get("useDeploymentBasedUrls"):
        return Access(url, key, headers(setting), query, deployments=True)
    return Access(f"{url}/v1", headers={"api-key": key} | headers(setting), query=query)


def _resource_url(setting: ProviderSetting) -> str:
    if option(setting, "baseUrl", "AZURE_BASE_URL"):
        return ""
    name = option(setting, "resourceName", "AZURE_RESOURCE_NAME")
    if name is None:
        message = "provider 'azure-openai' needs provider.setting.resourceName (AZURE_RESOURCE_NAME) or baseUrl"
        raise ConfigError(message)
    if not _RESOURCE.fullmatch(name):
        message = f"resource name {name!r} of provider 'azure-openai' is not usable: use letters, digits and hyphens"
        raise ConfigError(message)
    return resource_url(name)


def resource_url(name: str) -> str:
    """Where the API of an Azure resource is."""
    return f"https://{name}.openai.azure.com/openai"
