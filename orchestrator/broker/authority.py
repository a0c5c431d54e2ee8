"""What a Run may do, as the host knows it. Nothing of this is ever taken from a container."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class SkillHosts:
    """The hosts that one skill may reach: names, or `*.` and a name (spec 1.6)."""

    skill_name: str
    patterns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Authority:
    """What one Run may do.

    `delegates` are Expert keys. `reasoning_tokens` is the budget of one model call, 0 for none; `timeout_seconds`
    is for one model call. `generations` counts the model calls of this conversation before this Run;
    `max_generations` bounds those of this Run, so that a container gone wild cannot spend without end.
    `hosts` is by proxy credential.
    """

    expert_key: str
    delegates: frozenset[str]
    model: str
    reasoning_tokens: int
    timeout_seconds: float
    generations: int
    max_generations: int
    hosts: Mapping[str, SkillHosts] = field(default_factory=dict, repr=False)
