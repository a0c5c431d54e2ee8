"""The events that pass all filters, a page of them, and what stands around them (behaviour B9)."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.history.filters import Condition, Steps
from orchestrator.wire.any_event import AnyEvent


@dataclass(frozen=True, slots=True)
class Entry:
    """An event of a job's records, typed and as the JSON that was written."""

    event: AnyEvent
    document: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Criteria:
    """What an event must fulfil, all of it. An event's type must be in each of `types`."""

    types: tuple[frozenset[str], ...] = ()
    steps: Steps | None = None
    condition: Condition | None = None

    def hold(self, entry: Entry) -> bool:
        """Whether the event fulfils them."""
        document = entry.document
        return (
            all(document["type"] in group for group in self.types)
            and (self.steps is None or self.steps.holds(document))
            and (self.condition is None or self.condition.holds(document))
        )


@dataclass(frozen=True, slots=True)
class Page:
    """Which of the matches to show: `take` (0 is all) after the first `offset`, with `context` events on each side."""

    take: int = 100
    offset: int = 0
    context: int = 0

    @property
    def end(self) -> int | None:
        """Where it ends, None for no end."""
        return self.offset + self.take if self.take else None


@dataclass(frozen=True, slots=True)
class Selection:
    """What is shown, how many events matched at all, and how many of them are on the page."""

    entries: tuple[Entry, ...]
    matched: int
    on_page: int


def select(entries: Sequence[Entry], criteria: Criteria, page: Page) -> Selection:
    """Filter, then take the page, then add context, which counts as no match."""
    matching = [index for index, entry in enumerate(entries) if criteria.hold(entry)]
    chosen = matching[page.offset : page.end]
    shown = _around(chosen, page.context, len(entries))
    return Selection(tuple(entries[index] for index in shown), len(matching), len(chosen))


def _around(indexes: Iterable[int], context: int, length: int) -> list[int]:
    shown: list[int] = []
    following = 0
    for index in indexes:
        end = min(length, index + context + 1)
        shown += range(max(following, index - context), end)
        following = end
    return shown
