"""Stored measurements, by name, so that parts can be measured again; and the report of all of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from bench import kept
from bench.plot import plot
from bench.section import Section, rows

HERE = Path(__file__).parent
_KEPT = HERE / "figures.json"


@dataclass(frozen=True, slots=True)
class Kept:
    """A section, the day of its measurement, and the requested --rounds: long measurements take fewer."""

    section: Section
    day: str
    rounds: int


def keep(name: str, section: Section, rounds: int) -> None:
    """Replace the stored section of this name."""
    day = datetime.now(UTC).date().isoformat()
    kept.keep(_KEPT, name, Kept(section, day, rounds))


def write(order: Sequence[str]) -> None:
    """Write RESULTS.md and results.svg from the stored sections, in this order."""
    found = kept.read(_KEPT, Kept)
    measured = [found[name] for name in dict.fromkeys(order) if name in found]
    (HERE / "RESULTS.md").write_text(_rendered(measured))
    plot([each.section for each in measured], HERE / "results.svg")


def _rendered(measured: list[Kept]) -> str:
    targets = [target for each in measured for target in each.section.targets]
    said = (
        "Written by `make bench`, in interleaved rounds in one process; medians, ± half the quartile distance; a ratio "
        "is the median of the rounds' own. `make bench ONLY=NAMES` measures only these again. Machines are shared and "
        f"noisy: read ratios, not milliseconds. {kept.machine()}"
    )
    parts = (
        "# Figures",
        said,
        "\n".join((rows(["what", "target", "measured", "met"]), *map(str, targets))),
        "![Seconds by latency of the model, by width and by depth](results.svg)",
        *(f"{shown(each.section)}\n\nMeasured on {each.day} with --rounds {each.rounds}." for each in measured),
    )
    return "\n\n".join(parts) + "\n"


def shown(section: Section) -> str:
    """A section as Markdown."""
    return f"## {section.title}\n\n{section.text}"
