"""What a list of events adds up to (spec 2.4)."""

from collections.abc import Iterable, Mapping
from typing import Any

from orchestrator.history.filters import ERRORS


def summary(events: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Count events, errors, tool calls and delegations in `events`, given as JSON, and tell the steps they span."""
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
