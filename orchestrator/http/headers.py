"""Headers of requests."""

from collections.abc import Mapping

Headers = Mapping[str, str]


def merged(*layers: Headers) -> dict[str, str]:
    """Merge headers; a later one replaces an earlier one of the same name, whatever its case."""
    found: dict[str, tuple[str, str]] = {}
    for layer in layers:
        found |= {name.lower(): (name, value) for name, value in layer.items()}
    return dict(found.values())
