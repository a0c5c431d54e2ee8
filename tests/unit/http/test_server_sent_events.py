"""Streams of events, cut anywhere."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.http import server_sent_events
from orchestrator.http.server_sent_events import EventParser, ServerSentEvent

WORDS = st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]))
NAMES = WORDS.filter(bool)
EVENTS = st.lists(
    st.builds(ServerSentEvent, st.lists(WORDS, min_size=1, max_size=3).map("\n".join), st.just("") | NAMES)
)
ENDS = st.sampled_from(["\n", "\r", "\r\n"])


def parse(pieces: Sequence[bytes]) -> list[ServerSentEvent]:
    """Return the events of a stream in pieces."""
    parser = EventParser()
    return [event for piece in pieces for event in parser.feed(piece)]


def written(event: ServerSentEvent, end: str) -> str:
    """Return an event as a server writes it."""
    lines = [f"data: {line}" for line in event.data.split("\n")]
    return "".join(f"{line}{end}" for line in (*([f"event: {event.type}"] if event.type else []), *lines, ""))


@given(EVENTS, ENDS, st.data())
def test_what_was_written_is_read_wherever_it_is_cut(
    events: list[ServerSentEvent], end: str, data: st.DataObject
) -> None:
    """Also between the bytes of a character, and between a carriage return and its line feed."""
    stream = "".join(written(event, end) for event in events).encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)))))
    pieces = [stream[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert parse(pieces) == events


@given(st.lists(st.sampled_from(["data", ":", " ", "event", "x", "\n", "\r", "\r\n", "ä", "id", "retry", "\ufeff"])))
def test_every_cut_of_anything_gives_the_same(words: list[str]) -> None:
    """One byte at a time and all at once are the same stream, whatever it has."""
    stream = "".join(words).encode()
    one_by_one = [stream[index : index + 1] for index in range(len(stream))]
    assert parse(one_by_one) == parse([stream])


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b"data: a\ndata: b\n\n", [ServerSentEvent("a\nb")]),
        (b"data:a\n\ndata:  b\n\n", [ServerSentEvent("a"), ServerSentEvent(" b")]),
        (b"event: ping\n\ndata: a\n\n", [ServerSentEvent("a")]),
        (b": comment\n\nid: 1\nretry: 5\nevent: e\ndata: a\n\n", [ServerSentEvent("a", "e")]),
        (b"data\n\n", [ServerSentEvent("")]),
        (b"\xef\xbb\xbfdata: a\n\n", [ServerSentEvent("a")]),
        (b"data: a\r\rdata: b\r\n\r\n", [ServerSentEvent("a"), ServerSentEvent("b")]),
        (b"data: a\n", []),
        (b"data: \xe2\x80\xa8\n\n", [ServerSentEvent("\u2028")]),
        (b"", []),
    ],
)
def test_fields_of_an_event(stream: bytes, events: list[ServerSentEvent]) -> None:
    """Lines of data are joined, one space goes, comments and unknown fields and an unfinished event are ignored."""
    assert parse([stream]) == events


def test_lines_outside_of_the_format_take_little_memory() -> None:
    """An API that floods its client is cut, not kept."""
    parser = EventParser()
    for _ in range(100):
        assert list(parser.feed(b"x" * 10_000 + b"\n\n")) == []
    assert sum(map(len, parser.others)) < 300_000


@pytest.mark.parametrize(
    ("stream", "event"),
    [
        (b"event: e\ndata: a\n", ServerSentEvent("a", "e")),
        (b"data: a", ServerSentEvent("a")),
        (b"event: e", None),
        (b"data: a\n\n", None),
    ],
)
def test_an_event_that_the_end_cut_off_can_be_asked_for(stream: bytes, event: ServerSentEvent | None) -> None:
    """Only Google's SDK reads it, so it is not among the events."""
    parser = EventParser()
    list(parser.feed(stream))
    assert parser.rest() == event


def test_lines_of_no_field_are_kept_apart() -> None:
    """Google writes an error amid a stream as such lines."""
    parser = EventParser()
    assert list(parser.feed(b'data: a\n\n{\n  "error": {}\n}\n')) == [ServerSentEvent("a")]
    assert parser.others == ["{", '  "error": {}', "}"]


def test_bytes_that_are_not_utf_8_are_an_error() -> None:
    """A text with other characters than the model's is never delivered."""
    with pytest.raises(ValueError, match="utf-8"):
        parse([b"data: \xff\n\n"])


def test_an_event_without_an_end_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """No server can fill the memory; short events can be as many as there are."""
    monkeypatch.setattr(server_sent_events, "_EVENT_BYTES", 100)
    assert len(parse([b"data: a\n\n"] * 100)) == 100
    with pytest.raises(ValueError, match="too long"):
        parse([b"data: a\n"] * 100)
