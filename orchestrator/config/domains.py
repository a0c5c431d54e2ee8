"""Names of hosts, and the patterns that allow them (spec 1.6)."""

import re

_NAME_CHARACTERS = 253
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
# With such a last label, resolvers read the whole name as an IPv4 address in some spelling.
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*", re.ASCII)


def why_not_host(name: str) -> str | None:
    """Why `name`, in lower case, is not a full host name that could be public; None if it is."""
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
    """Check one of `allowedDomains` and give it in lower case: a host name, or `*.` and a host name.

    Refused beyond Perstack's rules: localhost, IP addresses, single labels and `*.com`, which name nothing that
    a skill should reach, or everything.

    Raises:
        ValueError: it is neither; says why.
    """
    pattern = text.lower()
    name = pattern.removeprefix("*.")
    if any(label.startswith("xn--") for label in name.split(".")):
        problem: str | None = "is punycode, which can imitate another name"
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
    """Whether `pattern` names `host`; both in lower case, without a trailing dot.

    `*.example.com` names every host below example.com at any depth and, as in Perstack, example.com itself: its
    proxy writes the pattern as `.example.com`, which means both (spec 8.3).
    """
    if not pattern.startswith("*."):
        return host == pattern
    return host == pattern[2:] or host.endswith(pattern[1:])
