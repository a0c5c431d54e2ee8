"""Timing things side by side: interleaved rounds in one process of measurement, medians, spreads and ratios."""

import resource
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import log
from pathlib import Path


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
        if len(self.seconds) < 2:  # noqa: PLR2004 - one value has no quartiles
            return 0.0
        low, _, high = statistics.quantiles(self.seconds, n=4)
        return (high - low) / 2

    def percentile(self, share: float) -> float:
        """The value below which `share` of the rounds lie."""
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


@dataclass(frozen=True, slots=True)
class Ratio:
    """What one thing takes over what another takes, by rounds in which both were measured one after the other."""

    median: float
    spread: float

    @classmethod
    def of(cls, thing: Figures, other: Figures) -> "Ratio":
        """Compare round by round: what disturbs the machine for a while disturbs both."""
        ratios = Figures("", tuple(a / b for a, b in zip(thing.seconds, other.seconds, strict=True)))
        return cls(ratios.median, ratios.spread)

    def __str__(self) -> str:
        return f"{self.median:.2f} ± {self.spread:.2f}"


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


def exponent(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """The power of the size that the cost grows with, by least squares: 1 is linear, 2 quadratic."""
    x, y = [log(size) for size in sizes], [log(cost) for cost in costs]
    return statistics.linear_regression(x, y).slope


def table(figures: Mapping[str, Figures], against: str) -> str:
    """A Markdown table: each median, as a ratio to one of them round by round, and the difference of the medians."""
    reference = figures[against]
    rows = [f"| what | median | ± | ratio to *{against}* | difference |", "|---|---|---|---|---|"]
    rows += [
        f"| {each.name} | {each.median * 1000:.0f} ms | {each.spread * 1000:.0f} ms | {Ratio.of(each, reference)} "
        f"| {(each.median - reference.median) * 1000:+.0f} ms |"
        for each in figures.values()
    ]
    return "\n".join(rows)


def cpu_seconds() -> float:
    """What this process has used so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def peak_megabytes() -> int:
    """The most memory that this process has had.

    Not `ru_maxrss`, which also counts what its parent had when it was forked: getrusage(2).
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) // 1024
