"""The events that match all filters: one page of them with surrounding events, and totals.

See docs/reference/perstack.md#log.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.history.filters import ERRORS, Condition, Steps
from orchestrator.wire.event import AnyEvent


@dataclass(frozen=True, slots=True)
class Entry:
    """A stored event, decoded and as its original JSON."""

    event: AnyEvent
    document: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Criteria:
    """Conditions that an event must meet, all of them. An event's type must be in each set of `types`."""

    types: tuple[frozenset[str], ...] = ()
    steps: Steps | None = None
    condition: Condition | None = None

    def hold(self, entry: Entry) -> bool:
        """Whether the event meets all conditions."""
        document = entry.document
        return (
            all(document["type"] in group for group in self.types)
            and (self.steps is None or self.steps.holds(document))
            and (self.condition is None or self.condition.holds(document))
        )


@dataclass(frozen=True, slots=True)
class Page:
    """The matches to show: `take` (0 means all) after the first `offset`, with `context` events on each side."""

    take: int = 100
    offset: int = 0
    context: int = 0

    @property
    def end(self) -> int | None:
        """The index after the last match; None means no limit."""
        return self.offset + self.take if self.take else None


@dataclass(frozen=True, slots=True)
class Selection:
    """The entries to show, the number of all matches, and the number of matches on the page."""

    entries: tuple[Entry, ...]
    matched: int
    on_page: int


def select(entries: Sequence[Entry], criteria: Criteria, page: Page) -> Selection:
    """Filter, take the page, then add context, which does not count as a match."""
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


def summary(events: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Count events, errors, tool calls and delegations in `events`, given as JSON, and return the range of steps."""
    listed = list(events)
    steps = [event["stepNumber"] for event in listed if "stepNumber" in event]
    counts: dict[str, Any] = {
        "totalEvents": len(listed),
        "errorCount": sum(event["type"] in ERRORS for event in listed),
        "toolCallCount": _calls(listed, "callTools"),
        "delegationCount": _calls(listed, "callDelegate"),
    }
    return counts | ({"stepRange": {"min": min(steps), "max": max(steps)}} if steps else {})


def _calls(events: Iterable[Mapping[str, Any]], kind: str) -> int:
    return sum(len(event.get("toolCalls", ())) for event in events if event["type"] == kind)
