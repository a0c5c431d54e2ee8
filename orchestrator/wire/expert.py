"""Experts, and the grammar of their keys.

See docs/reference/perstack.md#experts and docs/reference/perstack.md#expert-keys.
"""

import re
from typing import Self

from orchestrator.wire.frozen import Frozen
from orchestrator.wire.skill import Skill

_PART = r"[a-z0-9][a-z0-9_.-]*"
_NUMBER = r"(?:0|[1-9][0-9]*)"
SEMVER = re.compile(rf"{_NUMBER}\.{_NUMBER}\.{_NUMBER}(?:-[\w.-]+)?(?:\+[\w.-]+)?", re.ASCII)
_KEY = re.compile(
    rf"(?P<name>(?:@{_PART}/)?{_PART})(?:@(?:(?P<version>{SEMVER.pattern})|(?P<tag>{_PART})))?",
    re.ASCII,
)
_LOCAL_NAME = re.compile(r"(?:@[a-z0-9][a-z0-9_-]*/)?[a-z0-9][a-z0-9_-]*", re.ASCII)


class ExpertKey(Frozen):
    """A parsed Expert key: `@org/name@1.2.3` or `@org/name@tag`."""

    key: str
    name: str
    version: str | None = None
    tag: str | None = None

    @classmethod
    def parse(cls, key: str) -> Self:
        """Parse `key`.

        Raises:
            ValueError: `key` does not follow the grammar.
        """
        match = _KEY.fullmatch(key)
        if match is None:
            message = f"invalid expert key format: {key!r}"
            raise ValueError(message)
        return cls(key=key, **match.groupdict())


def is_local_name(name: str) -> bool:
    """Whether `name` can be the table key of an Expert in perstack.toml: no dots, no version, no tag.

    See docs/reference/perstack.md#expert-keys.
    """
    return _LOCAL_NAME.fullmatch(name) is not None


class ExpertId(Frozen):
    """Identifies an Expert in checkpoints and delegations."""

    key: str
    name: str
    version: str


class Expert(Frozen):
    """One declared Expert, with defaults filled in."""

    key: str
    name: str
    version: str = "1.0.0"
    description: str | None = None
    instruction: str
    skills: tuple[Skill, ...] = ()
    delegates: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()

    @property
    def identity(self) -> ExpertId:
        """The three fields that checkpoints store."""
        return ExpertId(key=self.key, name=self.name, version=self.version)
