"""The address of an API and what a call must carry, read from the given setting and environment.

SDKs would read the process's environment themselves. Only the command line may do that, so they get all values from
this module.
"""

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from orchestrator.errors import ConfigError, MissingEnvError
from orchestrator.http.address import Address, is_loopback
from orchestrator.http.proxies import Proxies, Proxy
from orchestrator.providers.api import ProviderSetting
from orchestrator.providers.url import parse_base_url

if TYPE_CHECKING:
    from httpx2 import AsyncClient

_PROXY = "PERSTACK_PROXY_URL"
_NETWORK = frozenset({"http_proxy", "https_proxy", "all_proxy", "ssl_cert_file", "ssl_cert_dir"})


def secret(setting: ProviderSetting, variable: str) -> str:
    """Return the value of `variable`.

    Raises:
        MissingEnvError: it is unset or empty.
    """
    value = setting.env.get(variable)
    if value:
        return value
    message = f"{variable} is not set; provider {setting.name!r} needs it in the environment or in an env file"
    raise MissingEnvError(message)


def option(setting: ProviderSetting, key: str, variable: str) -> str | None:
    """`key` of `[provider.setting]`, or else the environment's `variable`.

    See docs/reference/perstack.md#provider-variables.
    """
    value = setting.setting.get(key) or setting.env.get(variable)
    return str(value) if value else None


def base_url(setting: ProviderSetting, variable: str, default: str, *, http_anywhere: bool = False) -> str:
    """The API's address: `baseUrl`, else `variable`, else `default`, without a slash at its end.

    Raises:
        ConfigError: keys would be sent unencrypted, or it is not a URL.
    """
    url = option(setting, "baseUrl", variable) or default
    try:
        return parse_base_url(url, http_anywhere=http_anywhere).rstrip("/")
    except ValueError as error:
        allowed = "http or https" if http_anywhere else "https, or http on loopback"
        message = (
            f"base URL {url!r} of provider {setting.name!r} is not usable: use {allowed}, in ASCII characters without"
            " spaces and backslashes"
        )
        raise ConfigError(message) from error


def headers(setting: ProviderSetting) -> dict[str, str]:
    """`headers` of `[provider.setting]`.

    Raises:
        ConfigError: they are not a table of strings.
    """
    given: Any = setting.setting.get("headers") or {}
    if isinstance(given, Mapping) and all(isinstance(value, str) for value in given.values()):
        return {str(name): value for name, value in given.items()}
    message = "provider.setting.headers must be a table of strings; correct it in perstack.toml"
    raise ConfigError(message)


def find_proxy(url: str, env: Mapping[str, str]) -> Proxy | None:
    """Return the proxy through which `url` is reached; None for a direct connection, as to a loopback address.

    Raises:
        ValueError: a variable names no HTTP proxy.
    """
    address = Address.parse(url)
    if is_loopback(address.host):
        return None
    if env.get(_PROXY):
        return Proxy.parse(env[_PROXY])
    return Proxies.read(env).leading_to(address.scheme, address.host, address.port)


def http_client(url: str, env: Mapping[str, str]) -> "AsyncClient":
    """Create a client for `url`; this is slow.

    The process's environment is used only if it sets a proxy or certificates, and never for a loopback address, which
    cannot be reached through a proxy. Redirects are not followed: they would send keys to another address.
    """
    is_local = is_loopback(urlsplit(url).hostname or "")
    client: AsyncClient = import_module("httpx2").AsyncClient(
        trust_env=not is_local and any(name.lower() in _NETWORK for name, value in env.items() if value),
        proxy=None if is_local else env.get(_PROXY) or None,
    )
    return client
