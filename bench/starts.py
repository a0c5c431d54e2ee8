"""A cold start and a hop, beside a bare `docker run`."""

import sys
from pathlib import Path

from bench import command, driven, projects
from bench.measure import Figures, interleave, table
from bench.section import Section, Target

COLD = 0.3
P50, P95 = 0.015, 0.05
HOPS = 40
BARE = "bare docker run"


def starts(directory: Path, rounds: int) -> Section:
    """Measure."""
    fitness = projects.fitness(directory / "fitness", 0)
    figures = interleave(
        {
            BARE: command.bare,
            "`perstack-orch run`, cold, to the first event": lambda: (
                command.job(fitness, "fitness-assistant", "docker").first
            ),
            "`perstack-orch --help`": lambda: command.run([command.PERSTACK, "--help"]).whole,
            "`python -c 'import asyncio'`": lambda: (
                command.run([sys.executable, "-c", "import asyncio; print()"]).whole
            ),
        },
        rounds,
    )
    bare, cold = figures[BARE], figures["`perstack-orch run`, cold, to the first event"]
    over = cold.median - bare.median
    target = Target("cold, to the first event", "bare `docker run` + 300 ms", f"+ {over * 1000:.0f} ms", over <= COLD)
    return Section("Start", table(figures, BARE), (target,))


def hops(directory: Path) -> Section:
    """Measure hops of one job one after another, while its model takes its time."""
    project = projects.team(directory / "hops", 1, 300, rounds=HOPS)
    bare = Figures(BARE, tuple(command.bare() for _ in range(9)))
    found = driven.driven(project.directory, "boss", "docker")
    hops = Figures("hop", found.hops)
    p50, p95 = hops.percentile(0.5), hops.percentile(0.95)
    text = (
        f"{len(found.hops)} hops of one job, from the stop of one Run to the first event of the next in another "
        f"container, the model taking 300 ms: p50 {p50 * 1000:.0f} ms, p95 {p95 * 1000:.0f} ms, most "
        f"{max(found.hops) * 1000:.0f} ms. A bare `docker run` beside it: {bare.median * 1000:.0f} ms, so a hop is "
        f"{p50 / bare.median:.3f} of one.\n\nThe orchestrator used {found.cpu / found.runs * 1000:.0f} ms of CPU time "
        f"for each of {found.runs} Runs, its own start included, and {found.megabytes} MB at most."
    )
    reached = f"{p50 * 1000:.0f} ms, {p95 * 1000:.0f} ms"
    met = p50 <= P50 and p95 <= P95
    return Section("Delegation hops", text, (Target("hop, prewarmed", "p50 ≤ 15 ms, p95 ≤ 50 ms", reached, met),))
