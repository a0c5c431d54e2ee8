"""What a Run or an Expert is granted, as lines for a person. Pure."""

from collections.abc import Iterable, Iterator

from orchestrator.units import amount
from orchestrator.wire.granted import Bounds, Granted, Reach


def reach_lines(granted: Granted) -> Iterator[str]:
    """Write a line for `exec` and for each skill: variables and hosts."""
    yield f"exec: {_reach(granted.exec)}"
    yield from (f"skill {name}: {_reach(reach)}" for name, reach in granted.skills.items())


def grant_lines(granted: Granted) -> Iterator[str]:
    """Write all that was granted."""
    yield from reach_lines(granted)
    yield f"delegates: {listed(granted.delegates)}"
    yield f"sandbox: {granted.image} as {granted.user}, {bounds_line(granted.bounds)}"
    if granted.read_only or granted.hidden:
        yield f"workspace: read-only {listed(granted.read_only)}; hidden {listed(granted.hidden)}"


def bounds_line(bounds: Bounds) -> str:
    """Write what one Sandbox may use."""
    memory, files = f"{amount(bounds.memory)} memory", f"{amount(bounds.tmp)} of temporary files"
    processes = "processes as its node allows" if bounds.pids is None else f"{bounds.pids} processes"
    return f"{memory}, {bounds.cpus:g} cores, {processes}, {bounds.files} open files each, {files}"


def listed(names: Iterable[str]) -> str:
    """Write names one after the other; "none" where there are none."""
    return ", ".join(names) or "none"


def _reach(reach: Reach) -> str:
    return f"variables {listed(reach.env)}; hosts {listed(reach.hosts)}"
