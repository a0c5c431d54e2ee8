"""Curves as an SVG."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.section import Section


def plot(sections: Sequence[Section], path: Path) -> None:
    """Draw the curves of each section that has some, next to each other."""
    drawn = [section for section in sections if section.curves]
    if not drawn:
        return
    from matplotlib.figure import Figure  # noqa: PLC0415 - `make bench` alone installs it

    figure = Figure(figsize=(5 * len(drawn), 4), layout="tight")
    for place, section in zip(figure.subplots(1, len(drawn), squeeze=False)[0], drawn, strict=True):
        place.set_title(section.title, fontsize=10)
        for name, points in _ordered(section.curves):
            place.plot(*zip(*points, strict=True), marker="o", markersize=3, label=name)
        place.set_ylabel("seconds")
        place.set_ylim(bottom=0)
        place.grid(alpha=0.3)
        place.legend(fontsize=8)
    figure.savefig(path, format="svg", metadata={"Date": None})


def _ordered(curves: Mapping[str, Sequence[tuple[float, float]]]) -> list[tuple[str, Sequence[tuple[float, float]]]]:
    return sorted(curves.items())
