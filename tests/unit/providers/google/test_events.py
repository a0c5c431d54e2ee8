"""Events of a Gemini stream, and errors without the form of an event."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.providers.google.events import GeminiParser

ERROR = json.dumps({"error": {"code": 503, "message": 'a "}" in a text'}}, indent=2)
STREAM = f'data: {{"a": 1}}\r\n\r\n{ERROR}\n'.encode()


def parse(*pieces: bytes) -> list[object]:
    """Return the contents of a stream."""
    parser = GeminiParser()
    events = [event for piece in pieces for event in parser.feed(piece)]
    return [json.loads(event.data) for event in (*events, *parser.end())]


@given(st.lists(st.integers(0, len(STREAM))).map(sorted))
def test_lines_of_an_error_are_an_event_wherever_they_are_cut(cuts: list[int]) -> None:
    """Google's API writes an error amid a stream as lines of JSON."""
    pieces = [STREAM[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(STREAM)], strict=True)]
    assert parse(*pieces) == [{"a": 1}, json.loads(ERROR)]


def test_an_error_is_an_event_before_the_stream_ends() -> None:
    """The API may leave the connection open."""
    parser = GeminiParser()
    assert [json.loads(event.data) for event in parser.feed(STREAM)] == [{"a": 1}, json.loads(ERROR)]


@pytest.mark.parametrize("stream", [b'data: {"a": 1}\n', b'data: {"a": 1}', b'{"a":\n1}', b'{\n"a":\n1\n}\n'])
def test_what_the_end_completes_is_read(stream: bytes) -> None:
    """Unlike other APIs, this one counts on it."""
    assert parse(stream) == [{"a": 1}]


def test_lines_that_are_not_json_are_an_error() -> None:
    """The page of a gateway is no reply."""
    with pytest.raises(ValueError, match="Expecting value"):
        parse(b"<html>\n}\n</html>\n")
