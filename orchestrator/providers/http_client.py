"""The address of an API and what a call must carry, read from the given setting and environment.

Only the command line reads the environment of the process.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from orchestrator.errors import ConfigError, MissingEnvError
from orchestrator.http.address import Address, is_loopback
from orchestrator.http.headers import basic_authorization, merged
from orchestrator.http.proxies import Proxies, Proxy
from orchestrator.providers.api import ProviderSetting
from orchestrator.providers.url import parse_base_url

if TYPE_CHECKING:
    from orchestrator.http.connect import Connector
    from orchestrator.providers.api_client import ApiClient

_PROXY = "PERSTACK_PROXY_URL"
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_FRAMING = {"content-length", "transfer-encoding", "connection", "te", "trailer", "upgrade"}
"""The headers that decide where a request ends, and what follows it."""

_HEADER_VALUE = re.compile(r"([!-~]([ -~\t]*[!-~])?)?")


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


def connector(url: str, env: Mapping[str, str]) -> "Connector":
    """Make what connects to `url`, through the proxy and with the authorities that `env` names; it may take 20 ms.

    How long a connection may take is left to the caller.

    Raises:
        ValueError: a variable names no HTTP proxy.
        OSError: SSL_CERT_FILE or SSL_CERT_DIR cannot be used.
    """
    # Imported here: making a Job needs no client.
    from orchestrator.http.connect import Connector  # noqa: PLC0415
    from orchestrator.http.trust import trust  # noqa: PLC0415

    address, proxy = Address.parse(url), find_proxy(url, env)
    is_secure = address.is_secure or (proxy is not None and proxy.is_secure)
    return Connector(address, trust(env) if is_secure else None, proxy=proxy, seconds=None)


def user_header(url: str) -> dict[str, str]:
    """Return the header for the user that `url` names: for a gateway that asks for one."""
    value = basic_authorization(urlsplit(url))
    return {} if value is None else {"Authorization": value}


@asynccontextmanager
async def open_client(
    setting: ProviderSetting, url: str, given: Mapping[str, str], secrets: tuple[str, ...]
) -> AsyncIterator["ApiClient"]:
    """Open a client of the API at `url`, with headers that go with each call; `secrets` are masked in failures.

    Raises:
        ConfigError: a header cannot be sent, or the environment names a proxy or certificates that cannot be used.
    """
    from orchestrator.providers.api_client import ApiClient  # noqa: PLC0415 - as above

    user, password = user_header(url), urlsplit(url).password or ""
    given = merged(given, user)
    encoded = (value.removeprefix("Basic ") for value in user.values())
    secrets = (*secrets, password, unquote(password), *encoded)
    for name, value in given.items():
        if name.lower() in _FRAMING:
            message = (
                f"the header {name!r} of provider {setting.name!r} cannot be set: it belongs to the connection;"
                " remove it from provider.setting.headers"
            )
            raise ConfigError(message)
        if not (_HEADER_NAME.fullmatch(name) and _HEADER_VALUE.fullmatch(value)):
            message = (
                f"the header {name!r} of provider {setting.name!r} cannot be sent: a header has ASCII characters, and"
                " no line breaks or spaces around its value; correct provider.setting.headers, or the key"
            )
            raise ConfigError(message)
    try:
        connects = await asyncio.to_thread(connector, url, setting.env)
    except (ValueError, OSError) as error:
        message = f"the API of provider {setting.name!r} cannot be reached: {error}; correct the environment"
        raise ConfigError(message) from error
    client = ApiClient(connects, given, secrets)
    try:
        yield client
    finally:
        client.close()
