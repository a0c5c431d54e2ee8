"""Server-sent events, read by us and by the HTTP library of the protocol's SDK."""

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.runtime.mcp.event_stream import EventParser, ServerEvent
from orchestrator.runtime.mcp.protocol import ViolationError

pytestmark = [pytest.mark.judges]

LINES = st.sampled_from(
    [
        "event: message",
        "event:endpoint",
        "event",
        'data: {"jsonrpc":"2.0"}',
        "data:no space",
        "data:  two spaces",
        "data",
        "data: \u20ac and \U0001f600",
        "id: 7",
        "id",
        "id: a\0b",
        "retry: 500",
        "retry: soon",
        ": a comment",
        ":",
        "unknown: field",
        "",
        "",
        "",
    ]
)
ENDS = st.sampled_from(["\n", "\r\n", "\r"])
STREAMS = st.lists(st.tuples(LINES, ENDS), max_size=12).map(
    lambda lines: ("".join(map("".join, lines)) + "\n").encode()
)
"""The library takes a CR at the end of a stream for an empty line, so none ends with it."""


def by_library(content: bytes) -> list[ServerEvent]:
    """Read a stream as the SDK does."""
    response = httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=content)
    response.request = httpx2.Request("GET", "https://example.com")
    return [ServerEvent(event.event, event.data, event.id, event.retry) for event in httpx2.EventSource(response)]


def by_us(chunks: list[bytes], limit: int = 10_000) -> list[ServerEvent]:
    """Read a stream in these pieces."""
    parser = EventParser(limit)
    return [event for chunk in chunks for event in parser.feed(chunk)]


@given(STREAMS, st.data())
def test_events_are_the_same_however_they_are_cut(content: bytes, data: st.DataObject) -> None:
    """In pieces of any length, also within a character and between CR and LF."""
    cuts = sorted(data.draw(st.lists(st.integers(0, len(content)), max_size=6)))
    pieces = [content[start:end] for start, end in zip([0, *cuts], [*cuts, len(content)], strict=True)]
    assert by_us(pieces) == by_library(content)


@given(STREAMS)
def test_events_are_the_same_byte_by_byte(content: bytes) -> None:
    """Each byte on its own."""
    assert by_us([content[index : index + 1] for index in range(len(content))]) == by_library(content)


def test_invalid_utf_8_is_replaced() -> None:
    """A stream with other bytes continues."""
    content = b"data: \xff\n\ndata: next\n\n"
    assert [event.data for event in by_us([content])] == ["\ufffd", "next"]
    assert by_us([content]) == by_library(content)


def test_a_mark_of_the_byte_order_is_no_part_of_a_field() -> None:
    """As the standard has it; the library differs."""
    assert [event.data for event in by_us([b"\xef\xbb\xbfdata: x\n\n"])] == ["x"]


@pytest.mark.parametrize("content", [b"data: " + b"x" * 200, b"data: x\n" * 50, b"x" * 200, b"retry: " + b"9" * 200])
def test_an_endless_event_is_an_error(content: bytes) -> None:
    """A line, an event of many lines, and a field without a name are limited."""
    for pieces in ([content], [content[index : index + 1] for index in range(len(content))]):
        with pytest.raises(ViolationError, match="exceeded the 100 byte limit"):
            by_us(pieces, 100)


def test_comments_do_not_count() -> None:
    """A stream of keep-alives may last for ever."""
    assert by_us([b": ping\n\n"] * 1000, 100) == []
