"""The grants of a Run or an Expert as readable lines. Pure functions."""

from collections.abc import Iterable, Iterator

from orchestrator.units import amount
from orchestrator.wire.grant_record import GrantRecord, ResourceLimits, SkillAccess


def access_lines(granted: GrantRecord) -> Iterator[str]:
    """Yield a line for `exec` and for each skill: variables and hosts."""
    yield f"exec: {_access(granted.exec)}"
    yield from (f"skill {name}: {_access(access)}" for name, access in granted.skills.items())


def grant_lines(granted: GrantRecord) -> Iterator[str]:
    """Yield lines for all grants."""
    yield from access_lines(granted)
    yield f"delegates: {listed(granted.delegates)}"
    yield f"sandbox: {granted.image} as {granted.user}, {limits_line(granted.limits)}"
    if granted.read_only or granted.hidden:
        yield f"workspace: read-only {listed(granted.read_only)}; hidden {listed(granted.hidden)}"


def limits_line(limits: ResourceLimits) -> str:
    """Describe the limits of one Sandbox."""
    memory, files = f"{amount(limits.memory)} memory", f"{amount(limits.tmp)} of temporary files"
    processes = "processes limited by the node" if limits.pids is None else f"{limits.pids} processes"
    return f"{memory}, {limits.cpus:g} cores, {processes}, {limits.files} open files each, {files}"


def listed(names: Iterable[str]) -> str:
    """Join names with commas; "none" if no name exists."""
    return ", ".join(names) or "none"


def _access(access: SkillAccess) -> str:
    return f"variables {listed(access.env)}; hosts {listed(access.hosts)}"
