"""Headers of requests."""

import base64
from collections.abc import Mapping
from urllib.parse import SplitResult, unquote

Headers = Mapping[str, str]


def merged(*layers: Headers) -> dict[str, str]:
    """Merge headers; a later one replaces an earlier one of the same name, whatever its case."""
    found: dict[str, tuple[str, str]] = {}
    for layer in layers:
        found |= {name.lower(): (name, value) for name, value in layer.items()}
    return dict(found.values())


def basic_authorization(url: SplitResult) -> str | None:
    """The value of `Authorization` for the user that a URL names, read as curl does; None if it names none."""
    if url.username is None:
        return None
    pair = f"{unquote(url.username)}:{unquote(url.password or '')}"
    return f"Basic {base64.b64encode(pair.encode()).decode()}"
