"""A part of the report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Target:
    """A target, its required and measured values, and whether it is met."""

    what: str
    wanted: str
    got: str
    met: bool

    def __str__(self) -> str:
        return f"| {self.what} | {self.wanted} | {self.got} | {'yes' if self.met else '**no**'} |"


@dataclass(frozen=True, slots=True)
class Section:
    """Markdown below a heading, its targets, and the points of its curves by name."""

    title: str
    text: str
    targets: tuple[Target, ...] = ()
    curves: Mapping[str, Sequence[tuple[float, float]]] = field(default_factory=dict)


def rows(head: Sequence[str], *lines: Sequence[object]) -> str:
    """A Markdown table."""
    written = [head, ["---"] * len(head), *lines]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in written)
