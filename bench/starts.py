"""A cold start and a hop, compared with a bare `docker run`."""

import statistics
import sys
from pathlib import Path

from bench import command, driven, projects
from bench.measure import Figures, Ratio, interleave, table
from bench.section import Section, Target

COLD = 0.3
P50, P95 = 0.015, 0.05
HOPS = 20
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


def hops(directory: Path, rounds: int) -> Section:
    """Measure hops of jobs one after another, while their model takes its time."""
    project = projects.team(directory / "hops", 1, 300, rounds=HOPS)
    jobs: list[driven.Driven] = []

    def middle_hop() -> float:
        jobs.append(driven.driven(project.directory, "boss", "docker"))
        return Figures("", jobs[-1].hops).percentile(0.5)

    figures = interleave({BARE: command.bare, "hop": middle_hop}, rounds)
    hops = Figures("hop", tuple(hop for job in jobs[1:] for hop in job.hops))
    p50, p95 = hops.percentile(0.5), hops.percentile(0.95)
    text = (
        f"{len(hops.seconds)} hops of {rounds} jobs, from the stop of one Run to the first event of the next in "
        f"another container, the model taking 300 ms: p50 {p50 * 1000:.0f} ms, p95 {p95 * 1000:.0f} ms, most "
        f"{max(hops.seconds) * 1000:.0f} ms. A bare `docker run` between the jobs: "
        f"{figures[BARE].median * 1000:.0f} ms, so a hop is {Ratio.of(figures['hop'], figures[BARE])} of one.\n\n"
        f"The orchestrator used {statistics.median(job.cpu / job.runs for job in jobs) * 1000:.0f} ms of CPU time for "
        f"each of {jobs[0].runs} Runs, its own start included, and {max(job.megabytes for job in jobs)} MB at most."
    )
    reached = f"{p50 * 1000:.0f} ms, {p95 * 1000:.0f} ms"
    met = p50 <= P50 and p95 <= P95
    return Section("Delegation hops", text, (Target("hop, prewarmed", "p50 ≤ 15 ms, p95 ≤ 50 ms", reached, met),))
