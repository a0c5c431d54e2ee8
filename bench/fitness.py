"""The fitness job: in containers, as processes, and in one process without any sandbox."""

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from bench import command, projects
from bench.command import Took
from bench.measure import Figures, Ratio, interleave
from bench.section import Section, Target, rows
from tests.support.project import Project

DELAYS = (0, 100, 300, 1000)
EXPERT = "fitness-assistant"
BARE, DOCKER, PROCESS, INSIDE = "bare docker run", "in containers", "as processes", "in one process"
TIMES, OVER = 4.0, 0.1
_COMPARED = 300


def fitness(directory: Path, rounds: int) -> Section:
    """Measure at each latency of the model."""
    lines, curves = [], {name: list[tuple[float, float]]() for name in (DOCKER, PROCESS, INSIDE)}
    targets: tuple[Target, ...] = ()
    for delay in DELAYS:
        project = projects.fitness(directory / f"fitness-{delay}", delay)
        whole, span = _measured(project, rounds if delay < DELAYS[-1] else max(3, rounds // 3))
        for name in (DOCKER, PROCESS, INSIDE):
            against = Ratio.of(whole[name], whole[BARE])
            over = span[name].median - span[INSIDE].median
            lines.append([f"{delay} ms", name, _ms(whole[name]), against, _ms(span[name]), f"{over * 1000:+.0f} ms"])
            curves[name].append((delay / 1000, span[name].median))
        targets += _targets(delay, whole, span)
    text = rows(
        ["model latency", "", "all included", f"ratio to *{BARE}*", "first event to last", f"over *{INSIDE}*"], *lines
    )
    return Section("The fitness job: 3 Runs, 7 model calls", text, targets, curves)


def _measured(project: Project, rounds: int) -> tuple[dict[str, Figures], dict[str, Figures]]:
    inside = [sys.executable, "-m", "bench.inprocess", str(project.directory), EXPERT]
    ways: dict[str, Callable[[], Took]] = {
        DOCKER: lambda: command.job(project, EXPERT, "docker"),
        PROCESS: lambda: command.job(project, EXPERT, "process"),
        INSIDE: lambda: command.run(inside),
    }
    spans: dict[str, list[float]] = {name: [] for name in ways}

    def whole(name: str) -> float:
        took = ways[name]()
        spans[name].append(took.span)
        return took.whole

    things: dict[str, Callable[[], float]] = {BARE: command.bare}
    things |= {name: partial(whole, name) for name in ways}
    figures = interleave(things, rounds)
    return figures, {name: Figures(name, tuple(seconds[1:])) for name, seconds in spans.items()}


def _targets(delay: int, whole: dict[str, Figures], span: dict[str, Figures]) -> tuple[Target, ...]:
    if delay == 0:
        ratio = Ratio.of(whole[DOCKER], whole[BARE])
        met = ratio.median <= TIMES
        return (
            Target("fitness job, answered at once, all included", "≤ 4 bare `docker run`", f"{ratio} of them", met),
        )
    if delay == _COMPARED:
        over = span[DOCKER].median - span[INSIDE].median
        got = f"{over * 1000:+.0f} ms"
        return (Target("fitness job, 300 ms a model call", f"*{INSIDE}* + 100 ms", got, over <= OVER),)
    return ()


def _ms(figures: Figures) -> str:
    return f"{figures.median * 1000:.0f} ± {figures.spread * 1000:.0f} ms"
