"""Where an API is and what a call must carry: read from the setting and the environment that were handed in.

SDKs would read the process's environment themselves; that is the command line's to do, so they get everything from
here.
"""

from collections.abc import Mapping
from importlib import import_module
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from orchestrator.errors import ConfigError, MissingEnvError
from orchestrator.providers import ProviderSetting

if TYPE_CHECKING:
    from httpx2 import AsyncClient

_PROXY = "PERSTACK_PROXY_URL"
_NETWORK = frozenset({"http_proxy", "https_proxy", "all_proxy", "ssl_cert_file", "ssl_cert_dir"})


def secret(setting: ProviderSetting, variable: str) -> str:
    """The value of `variable`.

    Raises:
        MissingEnvError: it has none.
    """
    value = setting.env.get(variable)
    if value:
        return value
    message = f"{variable} is not set; provider {setting.name!r} needs it in the environment or in an env file"
    raise MissingEnvError(message)


def option(setting: ProviderSetting, key: str, variable: str) -> str | None:
    """`key` of `[provider.setting]`, or else `variable` of the environment (spec 10.1)."""
    value = setting.setting.get(key) or setting.env.get(variable)
    return str(value) if value else None


def base_url(setting: ProviderSetting, variable: str, default: str, *, http_anywhere: bool = False) -> str:
    """Where the API is: `baseUrl`, or else `variable`, or else `default`; no slash at its end.

    Raises:
        ConfigError: keys would travel in the clear, or it is no URL.
    """
    url = option(setting, "baseUrl", variable) or default
    if _is_usable(url, http_anywhere=http_anywhere):
        return url.rstrip("/")
    allowed = "http or https" if http_anywhere else "https, or http on loopback"
    message = f"base URL {url!r} of provider {setting.name!r} is not usable: use {allowed}"
    raise ConfigError(message)


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


def http_client(url: str, env: Mapping[str, str]) -> "AsyncClient":
    """A client for `url`, which is slow to make.

    The process's environment counts only where a proxy or certificates of one's own are wanted, and never for this
    machine's own loopback, which no proxy reaches. Redirects are refused: they would carry keys elsewhere.
    """
    near = is_loopback(url)
    client: AsyncClient = import_module("httpx2").AsyncClient(
        trust_env=not near and any(name.lower() in _NETWORK for name, value in env.items() if value),
        proxy=None if near else env.get(_PROXY) or None,
    )
    return client


def is_loopback(url: str) -> bool:
    """Whether `url` is on this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _is_usable(url: str, *, http_anywhere: bool) -> bool:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return False
    if not parts.hostname:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and (http_anywhere or is_loopback(url)))
