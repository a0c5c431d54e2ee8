"""What grows with what: each size is doubled twice, and the cost told as a power of it."""

from collections.abc import Callable, Sequence
from pathlib import Path

from bench import driven, projects
from bench.measure import exponent
from bench.section import Section, Target, rows
from bench.soak.flow import measured
from tests.support.project import Project

_LIMIT = 1.2
"""Of the power: noise, and what is sorted, is allowed."""

_STEPS_LIMIT = 2.1
"""Of a conversation's cost: each model request and checkpoint carries all of it by nature."""


def growth(directory: Path) -> Section:
    """Measure the orchestrator's CPU time, less that of the smallest job there is."""
    nothing = _cpu(projects.steps(directory / "nothing", 0), "boss")
    found = [
        _grown("events", (20_000, 40_000, 80_000), lambda size: measured(1, size, 1e9).cpu, 0.0, _LIMIT),
        _grown("delegates of one reply after another", (16, 32, 64), lambda size: _cpu(
            projects.team(directory / f"rounds-{size}", 1, 0, rounds=size), "boss"), nothing, _LIMIT),
        _grown("delegates of one reply", (8, 16, 32), lambda size: _cpu(
            projects.team(directory / f"children-{size}", size, 0), "boss"), nothing, _LIMIT),
        _grown("depth", (2, 4, 8), lambda size: _cpu(
            projects.chain(directory / f"deep-{size}", size, 0), "e0"), nothing, _LIMIT),
        _grown("steps", (20, 40, 80), lambda size: _cpu(
            projects.steps(directory / f"steps-{size}", size), "boss"), nothing, _STEPS_LIMIT),
    ]  # fmt: skip
    lines = [
        [each.what, ", ".join(map(str, each.sizes)), ", ".join(f"{cost * 1000:.0f}" for cost in each.costs),
         f"{each.power:.2f}"]
        for each in found
    ]  # fmt: skip
    targets = tuple(
        Target(f"growth with {each.what}", f"power ≤ {each.limit}", f"{each.power:.2f}", each.power <= each.limit)
        for each in found
    )
    text = rows(["what is doubled", "sizes", "ms of CPU time of the orchestrator", "power"], *lines)
    return Section("Growth", text, targets)


class _Grown:
    def __init__(self, what: str, sizes: Sequence[int], costs: Sequence[float], limit: float) -> None:
        self.what, self.sizes, self.costs, self.limit = what, sizes, costs, limit
        self.power = exponent(sizes, costs)


def _grown(what: str, sizes: Sequence[int], cost: Callable[[int], float], less: float, limit: float) -> _Grown:
    costs = [max(min(cost(size) for _ in range(3)) - less, 0.001) for size in sizes]
    return _Grown(what, sizes, costs, limit)


def _cpu(project: Project, expert: str) -> float:
    return driven.driven(project.directory, expert, "docker").cpu
