"""What a Run is granted, for records and `explain`: names, never values."""

from collections.abc import Mapping

from msgspec import field

from orchestrator.wire.frozen import Frozen
from orchestrator.wire.skill import BASE_SKILL


class SkillAccess(Frozen):
    """Variables (by name) and hosts of one skill or of `exec`; hosts may be patterns such as `*.example.com`."""

    env: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()


class ResourceLimits(Frozen):
    """What one Sandbox may use: bytes of memory (swap included) and of each tmpfs, cores, processes, open files.

    Files are those of each process. `pids` is None where the orchestrator cannot limit processes.
    """

    memory: int
    tmp: int
    cpus: float
    pids: int | None = None
    files: int


class GrantRecord(Frozen):
    """What one Run may read, reach and use: the record from which every other form of a permission is derived.

    `skills` is keyed by name. `user` is UID:GID. `read_only` lists workspace files that cannot be changed, `hidden`
    those that cannot be seen. `run_seconds` limits an attempt; None means no limit.
    """

    exec: SkillAccess
    skills: Mapping[str, SkillAccess]
    delegates: tuple[str, ...] = ()
    image: str
    user: str
    read_only: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()
    limits: ResourceLimits = field(name="bounds")
    run_seconds: float | None = None

    @property
    def by_name(self) -> dict[str, SkillAccess]:
        """The grants of `exec`, under the name of the base skill, and of each other skill."""
        return {BASE_SKILL: self.exec, **self.skills}

    @property
    def variables(self) -> tuple[str, ...]:
        """The names of all variables, sorted."""
        return tuple(sorted({name for reach in self.by_name.values() for name in reach.env}))
