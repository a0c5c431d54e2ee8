"""What a Run may do, as the host knows it. None of it ever comes from a container."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Self

_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class SkillHosts:
    """The hosts that one skill may reach: names, or `*.` and a name (docs/reference/perstack.md#domain-patterns).

    `private_ok` is for hosts in this machine's own configuration, such as a company's registry: those may
    be in a private network. Never for hosts in a perstack.toml.
    """

    skill_name: str
    patterns: tuple[str, ...]
    private_ok: bool = False


@dataclass(frozen=True, slots=True)
class EgressLimits:
    """Limits of the network use of one skill of one Run.

    `connections` limits those open at once, `connections_in_all` all requests, `sent` and `received` the bytes over all
    of them. For each connection, in seconds: until it names its host, without a byte either way, and in total.
    """

    connections: int = 64
    connections_in_all: int = 10_000
    sent: int = 1024 * _MIB
    received: int = 8 * 1024 * _MIB
    hello_seconds: float = 10
    idle_seconds: float = 300
    connection_seconds: float = 3600


@dataclass(frozen=True, slots=True)
class Authority:
    """What one Run may do.

    `delegates` are Expert keys. `reasoning_tokens` is the budget of one model call, 0 for none; `timeout_seconds`
    is for one model call. `generations` counts the model calls of this conversation before this Run;
    `max_generations` bounds those of this Run, so that a runaway container cannot spend without end.
    `hosts` is by proxy credential, `egress` is for each of them.
    """

    expert_key: str
    delegates: frozenset[str]
    model: str
    reasoning_tokens: int
    timeout_seconds: float
    generations: int
    max_generations: int
    hosts: Mapping[str, SkillHosts] = field(default_factory=dict, repr=False)
    egress: EgressLimits = EgressLimits()

    def allowing(self, credential: str, host: str) -> Self:
        """Return a copy with one more host for `credential`."""
        hosts = self.hosts[credential]
        return replace(self, hosts={**self.hosts, credential: replace(hosts, patterns=(*hosts.patterns, host))})

    @classmethod
    def of_install(cls, credential: str, hosts: SkillHosts) -> Self:
        """Return the authority of a Sandbox that installs packages: it may reach their registries and call no model."""
        return cls(
            expert_key="",
            delegates=frozenset(),
            model="",
            reasoning_tokens=0,
            timeout_seconds=0,
            generations=0,
            max_generations=0,
            hosts={credential: hosts},
            # Two installers in parallel, each with about fifty downloads at once.
            egress=EgressLimits(connections=192),
        )
