"""bench/RELIABILITY.md: the latest result of each part of the soak, stored in reliability.json."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from bench import kept
from bench.section import rows

_BENCH = Path(__file__).parents[1]
_KEPT = _BENCH / "reliability.json"
_REPORT = _BENCH / "RELIABILITY.md"


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the report: action, result, whether it is as required, seconds, and seed."""

    what: str
    came: str
    good: bool
    seconds: float
    seed: int

    def __str__(self) -> str:
        return (
            f"| {self.what} | {self.came} | {'yes' if self.good else '**NO**'} | {self.seconds:.0f} s | {self.seed} |"
        )


def keep(name: str, row: Row) -> None:
    """Replace the stored result of a part."""
    kept.keep(_KEPT, name, row)


def write(names: Iterable[str]) -> None:
    """Write the report of all stored results, in the order of `names`."""
    found = kept.read(_KEPT, Row)
    head = rows(["what", "result", "as required", "took", "seed"])
    lines = [
        "# Reliability: failures, and what they lose",
        "",
        'Written by `make soak`; `make soak SEED=N` repeats it, `ONLY="cuts replay"` runs only these parts.',
        kept.machine(),
        "",
        "The killed job has three Experts, of which two work at the same time, each with a tool that counts its calls.",
        "Afterwards the job is resumed and checked: every event stored once and in order, every Run with one end,",
        "every tool call executed once, no Sandbox, socket or file left.",
        "",
        head,
        *(str(found[name]) for name in names if name in found),
        "",
        "[docs/events.md](../docs/events.md) lists the guarantees and where they end.",
        "",
    ]
    _REPORT.write_text("\n".join(lines))
