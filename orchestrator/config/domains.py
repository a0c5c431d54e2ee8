"""Which hosts a skill may name: patterns of `allowedDomains`, and endpoints of remote skills.

See docs/reference/perstack.md#domain-patterns and docs/reference/perstack.md#remote-skills.
"""

import re
from ipaddress import IPv4Address, IPv6Address, ip_address

from orchestrator.providers.url import split_url

_NAME_CHARACTERS = 253
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
# With such a last label, resolvers parse the whole name as an IPv4 address.
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*", re.ASCII)


def why_not_host(name: str) -> str | None:
    """The reason why `name`, in lower case, cannot be a full public host name; None if it can."""
    labels = name.split(".")
    if len(name) > _NAME_CHARACTERS or not all(map(_LABEL.fullmatch, labels)):
        return "is not a host name"
    if _NUMBER.fullmatch(labels[-1]):
        return "is an IP address; give a host name"
    if labels[-1] == "localhost":
        return "is this machine; only public hosts can be reached"
    if len(labels) == 1:
        return "is a single label; give a full host name"
    return None


def parse_pattern(text: str) -> str:
    """Check an entry of `allowedDomains` and return it in lower case: a host name, or `*.` and a host name.

    Refused in addition to Perstack's rules: localhost, IP addresses, single labels and `*.com`, since they match hosts
    that no skill should reach, or too many.

    Raises:
        ValueError: it is neither; the message states why.
    """
    pattern = text.lower()
    name = pattern.removeprefix("*.")
    if any(label.startswith("xn--") for label in name.split(".")):
        problem: str | None = "is punycode, which can look like another name"
    elif "*" in name:
        problem = "has a wildcard that is not a leading *. before a host name"
    elif pattern != name and "." not in name:
        problem = "allows a whole top-level domain; give a full host name"
    else:
        problem = why_not_host(name)
    if problem is not None:
        message = f"{text!r} {problem}"
        raise ValueError(message)
    return pattern


def matches(pattern: str, host: str) -> bool:
    """Whether `pattern` matches `host`; both in lower case, without a trailing dot.

    `*.example.com` matches every host below example.com at any depth and, as in Perstack, example.com itself:
    Perstack's proxy writes the pattern as `.example.com`, which means both (docs/reference/perstack.md#allowlist).
    """
    if not pattern.startswith("*."):
        return host == pattern
    return host == pattern[2:] or host.endswith(pattern[1:])


def parse_endpoint(text: str) -> str:
    """Check the endpoint of an SSE skill. The broker checks host names again when it resolves them.

    Raises:
        ValueError: it is not a public https URL.
    """
    url = split_url(text)
    host = url.hostname or ""
    if url.scheme != "https" or is_private(host):
        message = f"must be a public https URL; {text!r} is not"
        raise ValueError(message)
    if url.username is not None:
        message = "must not contain a user name or password"
        raise ValueError(message)
    if url.port not in (None, 443):
        message = f"must use port 443, the only port that a Sandbox can reach, not {url.port}"
        raise ValueError(message)
    return text


def is_private(host: str) -> bool:
    """Whether `host`, as `urlsplit` returns it, is certainly not public. Nothing is resolved.

    Addresses in unusual spellings, which resolvers accept too, count as private.
    """
    name = host.lower().removesuffix(".")
    try:
        return not _is_public(ip_address(name))
    except ValueError:
        return why_not_host(name) is not None


def _is_public(address: IPv4Address | IPv6Address) -> bool:
    if isinstance(address, IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if inner is not None:
            return _is_public(inner)
    return address.is_global and not (address.is_multicast or address.is_reserved or address.is_unspecified)
