"""The locked packages of an image: which of them others need, so that an image has no more than it uses."""

import re
from collections.abc import Iterable, Mapping

_BLOCK = re.compile(r"^(?P<name>[a-z0-9][a-z0-9._-]*)(?:\[[^\]]*\])?==.*(?:\n[ ].*)*\n?", re.MULTILINE)
"""A package, with the lines of its hashes and of the packages that need it, as `uv export` writes them."""

_NEEDED_BY = re.compile(r"^ +# +(?:via +)?(?P<name>[a-z0-9][a-z0-9._-]*)$", re.MULTILINE)


def with_needed(requirements: str, names: Iterable[str]) -> str:
    """Return the requirements of the packages `names` and of all that they need, in the same order.

    Raises:
        KeyError: one of `names` is not among the requirements.
    """
    blocks = {found["name"]: found[0] for found in _BLOCK.finditer(requirements)}
    needs = _needs(blocks)
    kept, waiting = set[str](), list(names)
    while waiting:
        name = waiting.pop()
        if name not in kept:
            kept.add(name)
            waiting.extend(needs[name])
    return "".join(block for name, block in blocks.items() if name in kept)


def _needs(blocks: Mapping[str, str]) -> Mapping[str, list[str]]:
    """Turn the comments, which name the packages that need a package, into what each package needs."""
    needs: dict[str, list[str]] = {name: [] for name in blocks}
    for name, block in blocks.items():
        for found in _NEEDED_BY.finditer(block):
            if found["name"] in needs:
                needs[found["name"]].append(name)
    return needs
