"""The two links between a Sandbox and its broker, a unix socket and the container's own streams, side by side."""

from functools import partial
from pathlib import Path

from bench import command, crowd, driven, projects
from bench.command import Took
from bench.measure import Figures, Ratio, interleave
from bench.section import Section, Target, rows
from tests.support.project import Project

SOCKET, STREAM = "socket", "stream"
HOP = 0.002
"""Seconds that a hop over a stream may take longer."""
_HOPS = 20
_STEPS = 50


def links(directory: Path, rounds: int) -> Section:
    """Measure both in each round."""
    fitness = projects.fitness(directory / "links-fitness", 0)
    team = projects.team(directory / "links-team", 1, 300, rounds=_HOPS)
    steps = projects.steps(directory / "links-steps", _STEPS)
    first, whole = _commands(fitness, rounds)
    few = max(3, rounds // 3)
    hops: dict[str, list[float]] = {SOCKET: [], STREAM: []}

    def hop(link: str) -> float:
        found = driven.driven(team.directory, "boss", "docker", link)
        hops[link] += found.hops[1:]
        return Figures("", found.hops).percentile(0.5)

    hopped = interleave({link: partial(hop, link) for link in (SOCKET, STREAM)}, few)
    stepped = interleave({link: partial(_step, steps, link) for link in (SOCKET, STREAM)}, few)
    patient = crowd.told("patient", crowd.PATIENCE_MS, STREAM)
    table = rows(
        ["", SOCKET, STREAM, "ratio"],
        _row("start, to the first event", first),
        _row("fitness job, answered at once", whole),
        _row("hop, 300 ms a model call", hopped),
        _row("model call, tool call and checkpoint", stepped),
    )
    p95 = {link: Figures("", tuple(seconds)).percentile(0.95) for link, seconds in hops.items()}
    text = (
        f"{table}\n\nHops, p95: {p95[SOCKET] * 1000:.0f} ms by socket, {p95[STREAM] * 1000:.0f} ms by stream. "
        f"{patient.jobs} jobs of one model call of {crowd.PATIENCE_MS // 1000} s, by stream: {patient.completed} "
        f"completed, {patient.at_once} Sandboxes at once, the orchestrator {patient.megabytes} MB and "
        f"{patient.cpu / patient.runs * 1000:.0f} ms of CPU time a Run."
    )
    over = hopped[STREAM].median - hopped[SOCKET].median
    all_at_once = patient.completed == crowd.JOBS == patient.at_once
    return Section(
        "Sockets and streams",
        text,
        (
            Target("hop by stream", "by socket + 2 ms", f"{over * 1000:+.1f} ms", over <= HOP),
            Target(
                f"{crowd.JOBS} Sandboxes at once by stream",
                "all complete",
                f"{patient.completed}, {patient.at_once} at once",
                all_at_once,
            ),
        ),
    )


def _commands(project: Project, rounds: int) -> tuple[dict[str, Figures], dict[str, Figures]]:
    took: dict[str, list[Took]] = {SOCKET: [], STREAM: []}

    def whole(link: str) -> float:
        took[link].append(command.job(project, "fitness-assistant", "docker", "--link", link))
        return took[link][-1].whole

    figures = interleave({link: partial(whole, link) for link in took}, rounds)
    return {link: Figures(link, tuple(each.first for each in all_of[1:])) for link, all_of in took.items()}, figures


def _step(project: Project, link: str) -> float:
    return driven.driven(project.directory, "boss", "docker", link).span / _STEPS


def _row(what: str, figures: dict[str, Figures]) -> list[object]:
    cells = (f"{figures[link].median * 1000:.1f} ± {figures[link].spread * 1000:.1f} ms" for link in (SOCKET, STREAM))
    return [what, *cells, Ratio.of(figures[STREAM], figures[SOCKET])]
