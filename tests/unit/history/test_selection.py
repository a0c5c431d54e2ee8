from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.history.filters import ERRORS, TOOLS, parse_condition, parse_steps
from orchestrator.history.selection import Criteria, Entry, Page, Selection, select, summary
from orchestrator.wire.event import AnyEvent


def _entries(types: Iterable[str]) -> list[Entry]:
    return [
        Entry(
            AnyEvent(id=str(index), timestamp=index, job_id="j", run_id="r", position=index),
            {"type": kind, "stepNumber": index, "position": index},
        )
        for index, kind in enumerate(types)
    ]


LOG = _entries(["startRun", "callTools", "retry", "callTools", "callTools", "retry", "completeRun"])


def _shown(selection: Selection) -> list[int]:
    return [entry.document["stepNumber"] for entry in selection.entries]


@pytest.mark.behaviour("B9")
@pytest.mark.parametrize(
    ("criteria", "shown"),
    [
        (Criteria(), [0, 1, 2, 3, 4, 5, 6]),
        (Criteria(types=(TOOLS,)), [1, 3, 4]),
        (Criteria(types=(TOOLS, ERRORS)), []),
        (Criteria(types=(ERRORS,), steps=parse_steps(">2")), [5]),
        (Criteria(types=(TOOLS,), steps=parse_steps(">1"), condition=parse_condition(".position != 3")), [4]),
    ],
)
def test_all_filters_hold_at_once(criteria: Criteria, shown: list[int]) -> None:
    """An event must match all filters, and all groups of types."""
    assert _shown(select(LOG, criteria, Page())) == shown


@pytest.mark.behaviour("B9")
@pytest.mark.parametrize(
    ("page", "shown", "on_page"),
    [
        (Page(), [1, 3, 4], 3),
        (Page(take=1), [1], 1),
        (Page(take=0), [1, 3, 4], 3),
        (Page(take=1, offset=1), [3], 1),
        (Page(take=0, offset=2), [4], 1),
        (Page(offset=9), [], 0),
        (Page(take=1, context=1), [0, 1, 2], 1),
        (Page(context=1), [0, 1, 2, 3, 4, 5], 3),
        (Page(take=1, offset=2, context=9), [0, 1, 2, 3, 4, 5, 6], 1),
    ],
)
def test_the_page_is_cut_before_its_context_is_added(page: Page, shown: list[int], on_page: int) -> None:
    """Context is added to the page, each event once, and changes neither count."""
    selection = select(LOG, Criteria(types=(TOOLS,)), page)
    assert (_shown(selection), selection.matched, selection.on_page) == (shown, 3, on_page)


@pytest.mark.behaviour("B9")
@given(
    kinds=st.lists(st.sampled_from(["callTools", "retry"]), max_size=12),
    take=st.integers(0, 5),
    offset=st.integers(0, 5),
    context=st.integers(0, 4),
)
def test_context_shows_events_near_a_match_on_the_page(kinds: list[str], take: int, offset: int, context: int) -> None:
    """An event is shown if and only if a match on the page is at most `context` events away."""
    matches = [index for index, kind in enumerate(kinds) if kind == "retry"]
    page = matches[offset : offset + take] if take else matches[offset:]
    expected = [index for index in range(len(kinds)) if any(abs(index - match) <= context for match in page)]
    selection = select(_entries(kinds), Criteria(types=(ERRORS,)), Page(take, offset, context))
    assert (_shown(selection), selection.matched, selection.on_page) == (expected, len(matches), len(page))


def test_the_summary_counts_events_errors_calls_and_delegations() -> None:
    """Calls are counted, not the events that contain several."""
    events: list[dict[str, Any]] = [
        {"type": "skillStarting"},
        {"type": "callTools", "stepNumber": 2, "toolCalls": [{}, {}, {}]},
        {"type": "callDelegate", "stepNumber": 2, "toolCalls": [{}, {}]},
        {"type": "retry", "stepNumber": 4},
        {"type": "stopRunByError", "stepNumber": 7},
    ]
    counts = {"totalEvents": 5, "errorCount": 2, "toolCallCount": 3, "delegationCount": 2}
    assert summary(events) == counts | {"stepRange": {"min": 2, "max": 7}}
    assert summary([]) == {"totalEvents": 0, "errorCount": 0, "toolCallCount": 0, "delegationCount": 0}
