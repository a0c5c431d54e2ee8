"""Azure OpenAI."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from orchestrator.errors import ConfigError
from orchestrator.providers.api import Provider, ProviderSetting
from orchestrator.providers.http_client import base_url, headers, option, secret
from orchestrator.providers.openai.chat import ChatEndpoint, models_request, open_chat
from orchestrator.providers.openai.request import Dialect
from orchestrator.providers.setting import HttpSetting
from orchestrator.providers.spec import ProbeRequest, ProviderSpec

_KEY = "AZURE_API_KEY"
_RESOURCE = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?", re.ASCII)


@asynccontextmanager
async def connect(setting: ProviderSetting) -> AsyncIterator[Provider]:
    """Open a client of the API.

    Raises:
        ConfigError: neither a resource nor a base URL is set, or it is not valid.
        MissingEnvError: AZURE_API_KEY has no value.
    """
    async with open_chat(setting, _endpoint(setting, secret(setting, _KEY)), Dialect(_KEY)) as provider:
        yield provider


def probe(setting: ProviderSetting) -> ProbeRequest:
    """List the models (https://learn.microsoft.com/en-us/rest/api/azureopenai/models/list)."""
    key = secret(setting, _KEY)
    return models_request(_endpoint(setting, key), _KEY, key)


def _endpoint(setting: ProviderSetting, key: str) -> ChatEndpoint:
    """Use deployments in the URL if the setting requests it, else the newer form with the model in the body."""
    url = base_url(setting, "AZURE_BASE_URL", _resource_url(setting))
    query = {"api-version": option(setting, "apiVersion", "AZURE_API_VERSION") or "v1"}
    if setting.setting.get("useDeploymentBasedUrls"):
        return ChatEndpoint(url, key, headers(setting), query, deployments=True)
    return ChatEndpoint(f"{url}/v1", headers={"api-key": key} | headers(setting), query=query)


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
    """The base URL of an Azure resource."""
    return f"https://{name}.openai.azure.com/openai"


class AzureSetting(HttpSetting):
    """Azure's own."""

    resource_name: str | None = None
    api_version: str | None = None
    use_deployment_based_urls: bool | None = None


SPEC = ProviderSpec(
    name="azure-openai",
    connect=connect,
    settings=AzureSetting,
    required=(_KEY,),
    probe=probe,
    one_of={"resourceName": "AZURE_RESOURCE_NAME", "baseUrl": "AZURE_BASE_URL"},
    harmless=frozenset({"apiVersion", "useDeploymentBasedUrls"}),
    address_of={"resourceName": resource_url},
)
