"""Teams of growing width and chains of growing depth."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench import driven, projects
from bench.measure import Figures, Ratio, interleave
from bench.section import Section, rows
from tests.support.project import Project

WIDTHS = (1, 2, 4, 8, 16, 32)
DEPTHS = (1, 2, 3, 4, 5, 6, 7, 8)
_DELAY_MS = 300
_BACKENDS = ("docker", "process")


def widths(directory: Path, rounds: int) -> Section:
    """Measure how long a reply that calls many delegates takes to be answered."""
    return _shape(
        "Parallel delegates",
        f"One reply calls so many delegates, each of which takes one model call of {_DELAY_MS} ms; at most 8 work at "
        "once. Seconds from the first event to the last; the model alone takes 0.9 s for up to 8.",
        _Shape("boss", WIDTHS, lambda width: projects.team(directory / f"width-{width}", width, _DELAY_MS)),
        rounds,
    )


def depths(directory: Path, rounds: int) -> Section:
    """Measure how long a chain of delegations takes."""
    return _shape(
        "Nested delegates",
        f"Each Expert delegates to the next; each model call takes {_DELAY_MS} ms, of which there are two for each "
        "level and one for the deepest. Seconds from the first event to the last.",
        _Shape("e0", DEPTHS, lambda depth: projects.chain(directory / f"depth-{depth}", depth, _DELAY_MS)),
        rounds,
    )


@dataclass(frozen=True, slots=True)
class _Shape:
    expert: str
    sizes: Sequence[int]
    make: Callable[[int], Project]


def _shape(title: str, said: str, shape: _Shape, rounds: int) -> Section:
    lines, curves = [], {backend: list[tuple[float, float]]() for backend in _BACKENDS}
    for size in shape.sizes:
        project = shape.make(size)
        hops: dict[str, list[float]] = {backend: [] for backend in _BACKENDS}
        figures = interleave(
            {name: partial(_span, project, shape.expert, name, hops[name]) for name in _BACKENDS}, rounds
        )
        docker, process = (figures[name] for name in _BACKENDS)
        over = Ratio.of(docker, process)
        p95 = Figures("", tuple(hops["docker"])).percentile(0.95)
        lines.append(
            [size, f"{docker.median:.2f} ± {docker.spread:.2f}", f"{process.median:.2f}", over, f"{p95 * 1000:.0f} ms"]
        )
        for name in _BACKENDS:
            curves[name].append((size, figures[name].median))
    table = rows(["", "docker", "process", "ratio", "hop p95, docker"], *lines)
    return Section(title, f"{said}\n\n{table}", curves=curves)


def _span(project: Project, expert: str, backend: str, hops: list[float]) -> float:
    found = driven.driven(project.directory, expert, backend)
    hops += found.hops
    return found.span
