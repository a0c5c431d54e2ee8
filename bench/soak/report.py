"""bench/RELIABILITY.md: what each part of the soak found when it ran last, kept in reliability.json."""

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
    """A line of the report: what was done, what came of it, whether that is as it must be, seconds, and its seed."""

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
    """Keep what a part found, instead of what it found before."""
    kept.keep(_KEPT, name, row)


def write(names: Iterable[str]) -> None:
    """Write the report of all that is kept, in the order of `names`."""
    found = kept.read(_KEPT, Row)
    head = rows(["what", "what came of it", "as it must be", "took", "seed"])
    lines = [
        "# What goes wrong, and what is lost",
        "",
        'Written by `make soak`; `make soak SEED=N` does the same again, `ONLY="cuts replay"` those parts alone.',
        kept.machine(),
        "",
        "The job that is killed has three Experts, of which two work at once, each with a tool that counts what it",
        "did. Afterwards it is resumed, and held to: every event stored once and in order, every Run with one end,",
        "every tool's work done once, nothing left of Sandboxes, sockets or files.",
        "",
        head,
        *(str(found[name]) for name in names if name in found),
        "",
        "[docs/events.md](../docs/events.md) says what is guaranteed, and where the guarantee ends.",
        "",
    ]
    _REPORT.write_text("\n".join(lines))
