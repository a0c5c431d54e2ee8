"""Which URLs may be called: endpoints of skills (spec 6.3) and base URLs of model APIs (spec 1.3)."""

import re
from ipaddress import IPv4Address, IPv6Address, ip_address
from urllib.parse import SplitResult, urlsplit

from orchestrator.config.domains import why_not_host

_LOOPBACK_NAMES = {"localhost", "localhost."}


def parse_endpoint(text: str) -> str:
    """Check the endpoint of an SSE skill. Names are checked again when they are resolved, by the broker.

    Raises:
        ValueError: it is not a public https URL.
    """
    url = _split(text)
    host = url.hostname or ""
    if url.scheme != "https" or is_private(host):
        message = f"must be a public https URL; {text!r} is not"
        raise ValueError(message)
    if url.username is not None:
        message = "must not hold a user name or password"
        raise ValueError(message)
    if url.port not in (None, 443):
        message = f"must be on port 443, the only one that leaves a Sandbox; {url.port} is not"
        raise ValueError(message)
    return text


def parse_base_url(text: str) -> str:
    """Check a `baseUrl`: https, or http on this machine, where no network carries the key.

    Raises:
        ValueError: it is neither.
    """
    url = _split(text)
    if url.hostname and (url.scheme == "https" or (url.scheme == "http" and is_loopback(url.hostname))):
        return text
    message = "must be an https URL; http is allowed on this machine only"
    raise ValueError(message)


def is_private(host: str) -> bool:
    """Whether `host`, as `urlsplit` gives it, can be told not to be public without resolving it.

    Addresses in other than the usual spellings, which resolvers accept too, count as private.
    """
    name = host.lower().removesuffix(".")
    try:
        return not _is_public(ip_address(name))
    except ValueError:
        return why_not_host(name) is not None


def is_loopback(host: str) -> bool:
    """Whether `host` is this machine, by name or by address."""
    if host.lower() in _LOOPBACK_NAMES:
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _split(text: str) -> SplitResult:
    # Browsers and HTTP clients read a backslash as a slash, or drop what cannot be seen: such a URL has two meanings.
    if not re.fullmatch(r"[!-\[\]-~]+", text):
        message = "has characters that no URL has"
        raise ValueError(message)
    try:
        url = urlsplit(text)
        _ = url.port
    except ValueError as error:
        message = "is not a URL"
        raise ValueError(message) from error
    return url


def _is_public(address: IPv4Address | IPv6Address) -> bool:
    if isinstance(address, IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if inner is not None:
            return _is_public(inner)
    return address.is_global and not (address.is_multicast or address.is_reserved or address.is_unspecified)
