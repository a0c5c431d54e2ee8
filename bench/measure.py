"""Timing things side by side: interleaved rounds in one process of measurement, medians, spreads and ratios."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figures:
    """Seconds of one thing over all rounds."""

    name: str
    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle of all rounds."""
        return statistics.median(self.seconds)

    @property
    def spread(self) -> float:
        """Half the distance between the quartiles."""
        low, _, high = statistics.quantiles(self.seconds, n=4)
        return (high - low) / 2

    def percentile(self, share: float) -> float:
        """The value below which `share` of the rounds lie."""
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def interleave(things: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, Figures]:
    """Run each thing once a round; each gives the seconds that count. The first round warms up and is dropped."""
    seen: dict[str, list[float]] = {name: [] for name in things}
    for turn in range(rounds + 1):
        for name, thing in things.items():
            seconds = thing()
            if turn:
                seen[name].append(seconds)
    return {name: Figures(name, tuple(seconds)) for name, seconds in seen.items()}


def elapsed(work: Callable[[], object]) -> float:
    """Wall seconds of `work`."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def table(figures: Mapping[str, Figures], against: str) -> str:
    """A Markdown table with each median as a ratio to one of them, and the difference in milliseconds."""
    reference = figures[against].median
    rows = [f"| what | median | ± | ratio to *{against}* | difference |", "|---|---|---|---|---|"]
    rows += [
        f"| {each.name} | {each.median * 1000:.0f} ms | {each.spread * 1000:.0f} ms | {each.median / reference:.2f} "
        f"| {(each.median - reference) * 1000:+.0f} ms |"
        for each in figures.values()
    ]
    return "\n".join(rows)
